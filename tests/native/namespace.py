"""Tests that need a kernel's network of their own: each runs in a thread with a fresh namespace.

The namespace and every device in it are gone when the thread has ended and its sockets are closed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from lab.syscalls import CLONE_NEWNET, unshare

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP = 1


def in_new_netns(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test in a network namespace of its own, with the loopback up."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with ThreadPoolExecutor(1, initializer=_enter) as pool:
            pool.submit(test, *args, **kwargs).result()

    needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
    marked: Callable[..., None] = pytest.mark.netns(needs_root(run))
    return marked


def _enter() -> None:
    unshare(CLONE_NEWNET)
    set_up("lo")


def set_up(interface: str, *, up: bool = True) -> None:
    """Set a link up or down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", interface.encode(), 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        flags = flags | _IFF_UP if up else flags & ~_IFF_UP
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), flags))


def set_mtu(interface: str, mtu: int) -> None:
    """Set a link's MTU."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFMTU, struct.pack("16si12x", interface.encode(), mtu))


def no_ip6() -> None:
    """Links made from now on say nothing by themselves."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")


class KernelSide:
    """The host's view of an interface: frames with their virtio-net headers, both ways."""

    def __init__(self, interface: str, *, vnet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        self._header = bytes(10) if vnet else b""
        if vnet:
            self.socket.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
        self.socket.bind((interface, 3))
        self.socket.settimeout(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frame: bytes, header: bytes = b"") -> None:
        """As if the host's stack or a container had sent it."""
        self.socket.send((header or self._header) + frame)

    def receive(self) -> tuple[bytes, bytes]:
        """Virtio-net header and frame of what was delivered to the host."""
        data = self.socket.recv(70_000)
        return data[: len(self._header)], data[len(self._header) :]
