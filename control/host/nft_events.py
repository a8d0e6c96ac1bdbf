"""The kernel's news about nftables, by netlink: which table changed. Pure decoder and a socket.

Only the table of each message matters here. Shape of a datagram: messages on 4-byte borders, each

    0       4     6      8    12    16      17       18      20
    | len   | type | flags | seq | pid | family | version | res_id | attributes ...
    attribute: len u16, type u16, content; type 1 is the table's name, with a zero at its end

in host byte order. Type is ``10 << 8 | message``. Ref: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import anyio

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_NFTABLES: Final = 7
_SUBSYSTEM: Final = 10
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_GENERIC_LEN: Final = 4
_TABLE_ATTRIBUTE: Final = 1
_RECEIVE_LEN: Final = 65536
#: Room for a burst, such as a big foreign rule set being loaded.
_BUFFER_LEN: Final = 1 << 20

NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN, NEW_GENERATION = 0, 2, 3, 5, 15


@dataclass(slots=True, frozen=True)
class TableChange:
    """``message``: one of nf_tables' message numbers; ``family``: 1 inet, 2 ip, 7 bridge."""

    message: int
    family: int
    table: str

    @property
    def structural(self) -> bool:
        """Whether a table or chain came or went, or a chain's policy changed."""
        return self.message in (NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN)


def decode_changes(data: bytes) -> Iterator[TableChange]:
    """Changes in one datagram; what is cut short or of another subsystem is passed over."""
    offset = 0
    while offset + _HEADER.size + _GENERIC_LEN <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        if kind >> 8 == _SUBSYSTEM and kind & 0xFF != NEW_GENERATION:
            start = offset + _HEADER.size
            attributes = data[start + _GENERIC_LEN : offset + length]
            yield TableChange(kind & 0xFF, data[start], _table(attributes))
        offset += length + 3 & ~3


def _table(attributes: bytes) -> str:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == _TABLE_ATTRIBUTE:
            content = attributes[offset + _ATTRIBUTE.size : offset + length]
            return content.partition(b"\0")[0].decode("utf-8", "replace")
        offset += length + 3 & ~3
    return ""


class NftEvents:
    """The socket; hears everything from its construction on. Use as a context manager.

    Raises:
        OSError: the kernel has no nftables, or no privilege.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_LEN)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def wait(self) -> tuple[list[TableChange], bool]:
        """The next changes, and whether some before them were lost."""
        await anyio.wait_readable(self._socket)
        changes: list[TableChange] = []
        lost = False
        while True:
            try:
                changes += decode_changes(self._socket.recv(_RECEIVE_LEN))
            except BlockingIOError:
                return changes, lost
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise
                lost = True
