"""Who is at the other end of an API connection, and whether it is still there.

:class:`CallerProtocol` is uvicorn's own protocol with two additions: over a Unix socket the kernel
says which process called, and a request that waits is told when its client has left.

The kernel's word is that of the moment of connect(2): a socket that is handed on keeps it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import anyio
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_STATE: Final = "weft_caller"
_UCRED: Final = struct.Struct("3i")
#: SO_PEERGROUPS of <asm-generic/socket.h>, which the socket module does not name.
_SO_PEERGROUPS: Final = 59
#: As many as Python's getsockopt has room for; of a process in more only its first group counts.
_GROUPS_MAX: Final = 256
_GROUP: Final = struct.Struct("i")


@dataclass(slots=True, frozen=True)
class Credentials:
    """A process that called over a Unix socket: ``groups`` are all that it is in."""

    pid: int
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, sock: socket.socket) -> Credentials:
        """Those of a connected Unix socket's other end. Raises OSError."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        more = b""
        with suppress(OSError):
            more = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX * _GROUP.size)
        return cls(pid, uid, frozenset({gid, *(group for (group,) in _GROUP.iter_unpack(more))}))


class Caller:
    """One connection. ``credentials`` None: over TCP, or the kernel did not say.

    ``group`` is that of the socket's file: its members may call, as its mode says.
    """

    __slots__ = ("credentials", "gone", "group", "is_unix", "scopes")

    def __init__(
        self, credentials: Credentials | None, group: int | None, *, is_unix: bool
    ) -> None:
        self.credentials = credentials
        self.group = group
        self.is_unix = is_unix
        self.gone = False
        #: Of requests that wait, for :class:`Presence`.
        self.scopes: set[anyio.CancelScope] = set()

    @property
    def trusted(self) -> bool:
        """Whether it is root, ourselves, or in the socket's group; over TCP never."""
        known = self.credentials
        if known is None:
            return False
        return known.uid in (0, os.geteuid()) or self.group in known.groups

    def left(self) -> None:
        """The connection is no more."""
        self.gone = True
        for scope in self.scopes:
            scope.cancel()

    def while_present(self) -> Presence:
        """What is awaited in this context is cancelled when the client leaves."""
        return Presence(self)


class Presence:
    """See :meth:`Caller.while_present`; after a block left early execution goes on behind it."""

    __slots__ = ("_caller", "_scope")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._scope = anyio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._caller.scopes.add(self._scope)
        if self._caller.gone:
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._caller.scopes.discard(self._scope)
        return bool(self._scope.__exit__(kind, error, traceback))


def caller_of(request: Request) -> Caller:
    """The caller of a request that :class:`CallerProtocol` brought."""
    found = getattr(request.state, _STATE)
    if not isinstance(found, Caller):
        raise TypeError("requests come through CallerProtocol")
    return found


def caller_in(scope: Any) -> Caller | None:
    """The same from an ASGI scope; None when it came another way."""
    found = scope.get("state", {}).get(_STATE)
    return found if isinstance(found, Caller) else None


class CallerProtocol(HttpToolsProtocol):
    """One HTTP connection; its :class:`Caller` is in the scope's state."""

    _caller: Caller

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who it is."""
        super().connection_made(transport)
        self._caller = _identify(transport.get_extra_info("socket"))
        self.app_state = {**self.app_state, _STATE: self._caller}

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those that wait."""
        self._caller.left()
        super().connection_lost(exc)


def _identify(sock: Any) -> Caller:
    if sock is None or sock.family != socket.AF_UNIX:
        return Caller(None, None, is_unix=False)
    # asyncio shows a view of the socket, which is enough for getsockopt
    try:
        path = sock.getsockname()
        group = Path(path).stat().st_gid if path else None
        return Caller(Credentials.of(sock), group, is_unix=True)
    except OSError:
        return Caller(None, None, is_unix=True)
