"""Routing netlink in batches: many requests in one system call, each with its own verdict.

pyroute2 writes and reads the messages; the socket is ours. pyroute2's own sockets cost a system
call and a turn of an event loop per request (0.7 ms) and 5 ms to open, and an attachment needs a
fresh socket inside each container.

The kernel carries out the requests of a batch in order and goes on after one that failed. So a
request belongs into one batch with what must not happen without it only if its failure is harmless.

Source of truth: Linux include/uapi/linux/rtnetlink.h, netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from base.errors import NetlinkError

NEWLINK: Final = 16
DELLINK: Final = 17
GETLINK: Final = 18
NEWADDR: Final = 20
DELADDR: Final = 21
GETADDR: Final = 22
NEWROUTE: Final = 24
GETROUTE: Final = 26
GETNSID: Final = 90

_REQUEST: Final = 0x1
_ACK: Final = 0x4
_ROOT_MATCH: Final = 0x300
_EXCL: Final = 0x200
_CREATE: Final = 0x400
#: Flags of a request that makes something new.
MAKE: Final = _CREATE | _EXCL
#: Flags of a request for a list.
DUMP: Final = _ROOT_MATCH

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_ACK_TLVS: Final = 0x200
_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
_EXT_ACK: Final = 11
_STRICT_CHECK: Final = 12
_RECV_LEN: Final = 1 << 17
#: The kernel answers while we send; it is slow only while others hold its lock for links.
_TIMEOUT_S: Final = 30
_HEADER: Final = struct.Struct("=IHHII")

_CODECS: Final[dict[int, type[nlmsg]]] = {
    NEWLINK: ifinfmsg,
    NEWADDR: ifaddrmsg,
    NEWROUTE: rtmsg,
    88: nsidmsg,  # RTM_NEWNSID, the answer to GETNSID
}


@dataclass(slots=True)
class Request:
    """One message: ``body`` a pyroute2 message without header; ``what`` on what it works."""

    kind: int
    body: Any
    what: str
    flags: int = 0


@dataclass(slots=True)
class Answer:
    """What came of a request: ``errno`` 0 for success, and the messages asked for."""

    request: Request
    errno: int = 0
    reason: str = ""
    found: list[Any] = field(default_factory=list)

    def error(self) -> NetlinkError:
        """The refusal as an exception."""
        reason = self.reason or os.strerror(self.errno)
        if self.errno in (errno.EPERM, errno.EACCES):
            reason = "permission denied; run as root"
        elif self.errno == errno.EXFULL:
            reason = "the bridge has as many ports as the kernel gives it; use another bridge"
        return NetlinkError("configure", self.request.what, reason, self.errno)

    def check(self, *tolerated: int) -> None:
        """Raise NetlinkError unless it succeeded or failed with one of the ``tolerated``."""
        if self.errno and self.errno not in tolerated:
            raise self.error()


class RouteSocket:
    """A socket of the namespace that the calling thread is in; any thread may use it afterwards.

    Raises:
        NetlinkError: there is none to be had.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
        except OSError as err:
            raise _translated(err, "a netlink socket") from err
        try:
            self._socket.bind((0, 0))
            for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _TIMEOUT_S, 0)
            )
        except OSError as err:
            self._socket.close()
            raise _translated(err, "a netlink socket") from err

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry out all requests, none of them for a list; an answer each, failures included.

        Raises:
            NetlinkError: the socket itself failed.
        """
        with self._lock:
            return self._exchange(requests)

    def one(self, request: Request, *tolerated: int) -> Answer:
        """Carry out one request, for a list too, and raise NetlinkError if it is refused."""
        with self._lock:
            (answer,) = self._exchange([request])
        answer.check(*tolerated)
        return answer

    def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        octets = bytearray()
        for request in requests:
            self._sequence = (self._sequence + 1) & 0x7FFFFFFF
            octets += _encode(request, self._sequence)
            answers[self._sequence] = Answer(request)
        waiting = set(answers)
        try:
            if octets:
                self._socket.send(octets)
            while waiting:
                self._take(self._socket.recv(_RECV_LEN), answers, waiting)
        except OSError as err:
            raise _translated(err, requests[0].what) from err
        return list(answers.values())

    def _take(self, datagram: bytes, answers: dict[int, Answer], waiting: set[int]) -> None:
        for kind, flags, sequence, message in _split(datagram):
            answer = answers.get(sequence)
            if answer is None:
                continue  # of a request that was given up
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                answer.errno, answer.reason = _verdict(kind, flags, message)
                waiting.discard(sequence)
            elif kind in _CODECS:
                found = _CODECS[kind](message)
                found.decode()
                answer.found.append(found)


def _encode(request: Request, sequence: int) -> bytes:
    body = request.body
    # a list ends with NLMSG_DONE and has no acknowledgement besides
    wanted = 0 if request.flags & DUMP == DUMP and request.kind in _LISTS else _ACK
    body["header"]["type"] = request.kind
    body["header"]["flags"] = _REQUEST | wanted | request.flags
    body["header"]["sequence_number"] = sequence
    body.encode()
    octets = bytes(body.data)
    return octets + bytes(-len(octets) % 4)


_LISTS: Final = (GETLINK, GETADDR, GETROUTE)


def _split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, whole message) of each message."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            return
        yield kind, flags, sequence, datagram[offset : offset + length]
        offset += (length + 3) & ~3


def _verdict(kind: int, flags: int, message: bytes) -> tuple[int, str]:
    """(errno, the kernel's sentence or "") of an acknowledgement or the end of a list."""
    if len(message) < _HEADER.size + 4:
        return 0, ""
    (code,) = struct.unpack_from("=i", message, _HEADER.size)
    reason = ""
    if kind == _NLMSG_ERROR and flags & _ACK_TLVS:
        offset = _HEADER.size + 4 + _HEADER.size  # behind the error and the capped request
        while offset + 4 <= len(message):
            length, attribute = struct.unpack_from("=HH", message, offset)
            if length < 4:
                break
            if attribute & 0x3FFF == _ATTR_MSG:
                raw = message[offset + 4 : offset + length]
                reason = raw.rstrip(b"\0").decode("utf-8", "replace")
            offset += (length + 3) & ~3
    return -code, reason


def _translated(err: OSError, what: str) -> NetlinkError:
    reason = err.strerror or str(err)
    if err.errno == errno.EAGAIN:
        reason = f"the kernel did not answer within {_TIMEOUT_S} s"
    return NetlinkError("configure", what, reason, err.errno or 0)
