"""The kernel's news about links and their addresses: tells that something changed, not what."""

from __future__ import annotations

import errno
import socket
from typing import Final, Self

import anyio

_GROUPS: Final = 0x1 | 0x10  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR
_RECEIVE_LEN: Final = 65536


class LinkEvents:
    """A netlink socket; hears everything from its construction on. Use as a context manager."""

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _GROUPS))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def wait(self) -> None:
        """Return after something has changed; one call for a whole burst."""
        await anyio.wait_readable(self._socket)
        while True:
            try:
                self._socket.recv(_RECEIVE_LEN)
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno != errno.ENOBUFS:  # lost events are an event too
                    raise
