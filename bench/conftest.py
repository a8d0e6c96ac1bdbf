"""Fixtures of the benchmarks: sockets and a stand-in for the TAP that need no privilege."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bench.rig import PortPair, SleeveSockets


@pytest.fixture
def sockets() -> Iterator[SleeveSockets]:
    """Our sleeve sockets and a neighbour's, on the loopback device."""
    with SleeveSockets() as opened:
        yield opened


@pytest.fixture
def port_pair() -> Iterator[PortPair]:
    """A descriptor that keeps frame borders as a TAP does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield PortPair(ours, theirs)
