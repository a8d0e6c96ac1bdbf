"""The way of a lone frame with encryption: nothing in clear, nothing lost."""

from __future__ import annotations

import os
import socket

import pytest

from bench.rig import PortPair
from native import lib
from tests.native.test_seal import CIPHERS, FORWARDER, NAMES, NOW_S, Node, some_frames

pytestmark = pytest.mark.native


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_lone_frame_is_sealed_and_opened(cipher: int) -> None:
    ours, theirs = Node(0), Node(1)
    key = os.urandom(32)
    ours.set_key(key, cipher, outbound=True)
    theirs.set_key(key, cipher, outbound=False)
    (frame,) = some_frames(1, 300)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end,
    ):
        for one in (wire, end):
            one.bind(("127.0.0.1", 0))
            one.settimeout(5)
        ours.datapath.set_forwarder(FORWARDER, 1, NAMES[1], "127.0.0.1", wire.getsockname()[1])
        bridge = PortPair(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        bridge.send([frame])
        fd = bridge.ours.fileno()
        got = lib.wn_express_out(
            ours.datapath.c, ours.batch.c, fd, lib.WN_PORT_TAP, end.fileno(), end.fileno(), NOW_S, 1
        )
        assert got == lib.WN_EXPRESS_DONE
        datagram = wire.recv(2000)
        assert datagram[:6] == NAMES[0]
        assert len(datagram) == 44 + len(frame)
        assert frame[14:34] not in datagram
        end.sendto(datagram, wire.getsockname())
        got = lib.wn_express_in(
            theirs.datapath.c, theirs.batch.c, fd, 0, wire.fileno(), wire.fileno(), NOW_S, 64
        )
        assert got == lib.WN_EXPRESS_DONE
        bridge.theirs.settimeout(5)
        assert bridge.theirs.recv(2000)[10:] == frame
        bridge.ours.close()
        bridge.theirs.close()
