"""Gratuitous ARP: the frame, the three times, and that nothing is held longer than that."""

from __future__ import annotations

import socket
import threading
from ipaddress import IPv4Address

import pytest

from base.errors import NetlinkError
from base.names import Mac
from cni.announce import Announcer, announcing_socket, gratuitous_arp
from tests.native.namespace import in_new_netns

MAC = Mac.parse("62:66:3f:b7:2e:c1")


def test_the_frame() -> None:
    frame = gratuitous_arp(MAC, IPv4Address("10.32.0.3"))
    assert frame.hex(" ", 2) == (
        "ffff ffff ffff 6266 3fb7 2ec1 0806 "
        "0001 0800 0604 0001 6266 3fb7 2ec1 0a20 0003 0000 0000 0000 0a20 0003"
    )


def test_an_announcement_is_made_three_times() -> None:
    announcer = Announcer()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.settimeout(20)
        announcer.announce("one", ours, [b"first", b"second"])
        heard = [theirs.recv(100) for _ in range(6)]
        assert heard == [b"first", b"second"] * 3
        assert theirs.recv(100) == b""  # it is closed


def test_cancelled_is_let_go_of() -> None:
    announcer = Announcer()
    pairs = {key: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for key in "ab"}
    for key, (ours, theirs) in pairs.items():
        theirs.settimeout(20)
        announcer.announce(key, ours, [key.encode()])
        assert theirs.recv(10) == key.encode()
    announcer.cancel("a")
    assert pairs["a"][1].recv(10) == b""  # closed, and nothing said before
    assert pairs["b"][0].fileno() != -1
    announcer.close()
    while pairs["b"][1].recv(10):
        pass  # it may have been repeated meanwhile
    for _, theirs in pairs.values():
        theirs.close()


def test_the_thread_ends_and_another_begins() -> None:
    announcer = Announcer()
    for _ in range(2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = set(threading.enumerate())
        announcer.announce("x", ours, [b"."])
        new = set(threading.enumerate()) - before
        (thread,) = [each for each in new if each.name == "announcer"]
        announcer.cancel("x")
        thread.join(20)
        assert not thread.is_alive()
        theirs.close()


def test_nobody_listening_is_no_error() -> None:
    announcer = Announcer()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    announcer.announce("x", ours, [b"."])
    announcer.close()


@in_new_netns
def test_no_interface() -> None:
    with pytest.raises(NetlinkError, match="announce on eth7"):
        announcing_socket("eth7")
