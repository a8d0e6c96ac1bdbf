"""What a stop leaves behind. Source of truth: node specification 7."""

from __future__ import annotations

import socket

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from lab.host import Host
from lab.lab import Lab
from tests.netns.support import netns, until

pytestmark = [*netns(120), pytest.mark.patient]

_FLOWS = NFCTAttrTuple(proto=socket.IPPROTO_UDP, dport=6783)


def _flows(host: Host) -> int:
    def count() -> int:
        with NFCTSocket() as kernel:
            return len(list(kernel.dump(tuple_orig=_FLOWS)))

    return host.call(count)


async def test_the_kernel_forgets_the_flows_of_the_data_path() -> None:
    async with Lab(2, containers=0) as lab:
        await lab.start_weft(mesh=True)
        one, other = lab.hosts
        for host in lab.hosts:
            await host.wait_established(1)
        await until(lambda: _flows(one) > 0, "the packet filter follows flows")
        lab.partition(one, other)  # what the other still sends would be a flow again
        assert await one.stop_weft() == 0
        assert _flows(one) == 0
        assert _flows(other) > 0
