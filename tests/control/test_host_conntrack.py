"""Flows that the kernel remembers, in a network namespace of their own."""

from __future__ import annotations

import socket

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from control.host.conntrack import forget_flows
from tests.control.netns_host import sh
from tests.native.namespace import in_new_netns

PORT = 6783


def _ports() -> list[int]:
    found = []
    with NFCTSocket() as kernel:
        for entry in list(kernel.dump()):
            proto = entry.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
            found.append(int(proto.get_attr("CTA_PROTO_DST_PORT")))
    return sorted(found)


@in_new_netns
def test_flows_of_the_data_path_are_forgotten_and_no_others() -> None:
    sh("ip link set lo up; nft add table ip t")
    sh("nft 'add chain ip t c { type filter hook output priority 0; }'")
    sh("nft add rule ip t c ct state new accept")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        for receiver, port in ((ours, PORT), (other, PORT + 7)):
            receiver.bind(("127.0.0.1", port))
            sender.sendto(b"x", ("127.0.0.1", port))
        sender.sendto(b"x", ("127.0.0.1", PORT))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            second.sendto(b"x", ("127.0.0.1", PORT))
    assert _ports() == [PORT, PORT, PORT + 7]
    assert forget_flows(PORT) == 2
    assert _ports() == [PORT + 7]
    assert forget_flows(PORT) == 0


@in_new_netns
def test_nothing_to_forget() -> None:
    assert forget_flows(PORT) == 0
