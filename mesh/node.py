"""The mesh on real sockets: listener, dialler, one reader and one writer per connection, one timer.

Everything that is decided is decided in :mod:`mesh.core`; here bytes and time are carried to it and
its events away from it. A writer asks the core for bytes only when its socket has taken the last
ones, so a slow neighbour gets merged gossip and costs no memory.

Events for others (all but Dial and Close) go to the ``handler`` that the owner gives, in order,
from the loop's thread. Source of truth: mesh specification 2.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import os
import random
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus

from base.clock import Clock, MonotonicClock
from base.errors import ConfigError
from base.log import kv
from mesh import events
from mesh.core import MeshCore, MeshOptions
from mesh.maker import DirectPeer, join_addr, parse_peer_text, split_addr
from mesh.timers import RateLimits

log = logging.getLogger(__name__)

#: Of one address; a flood from one place must not keep the others waiting.
ACCEPT_BURST: Final = 64
ACCEPT_INTERVAL_S: Final = 0.05
_SOURCES_MAX: Final = 4096
#: A connection that was there, and was gone when it was to be accepted.
ACCEPT_TIMEOUT_S: Final = 2.0
#: Three SYNs. The next attempt is not far.
DIAL_TIMEOUT_S: Final = 5.0
READ_LEN: Final = 65536
#: What an IPv4 host must take in one piece, 576 bytes, without the headers of IP and TCP.
SEGMENT_LEN: Final = 536
#: They are few and the socket's buffer is empty: only a peer that never read makes us wait.
LAST_WORDS_S: Final = 0.5
_SOCKET_ERRORS: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)

Handler = Callable[[events.Event], None]


@dataclass(slots=True)
class _Link:
    """A socket, and how to wake its writer and end both its tasks."""

    stream: SocketStream
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    wake: anyio.Event = field(default_factory=anyio.Event)
    last_words: bytes = field(default=b"", repr=False)


class MeshNode:
    """One router's membership. Make it, register channels at ``core``, then :meth:`run` it.

    ``host`` is the address to listen on and to dial from, empty for all.
    """

    def __init__(
        self,
        options: MeshOptions,
        *,
        host: str = "",
        handler: Handler | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock or MonotonicClock()
        self.core = MeshCore(options, self._clock.now(), rng or random.SystemRandom())
        #: The port listened on; differs from the option only when that is 0.
        self.port = options.port
        self._host = host
        self._handler = handler
        #: Connections closed at once because their address had opened too many.
        self.refused = 0
        self._limits = RateLimits(ACCEPT_BURST, ACCEPT_INTERVAL_S, _SOURCES_MAX)
        self._links: dict[int, _Link] = {}
        self._rearm = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and gossip until cancelled; started once the port is open.

        Raises:
            ConfigError: the port or the address cannot be had.
        """
        try:
            listener = await anyio.create_tcp_listener(
                local_host=self._host or "0.0.0.0", local_port=self.port, reuse_port=False
            )
        except OSError as err:
            raise ConfigError(_bind_error(self._host, self.port, err)) from err
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(listener)
            self.port = listener.extra(SocketAttribute.local_port)
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for one in listener.listeners:
                    _cut_small(one.extra(SocketAttribute.raw_socket))
                    tasks.start_soon(self._accept, one)
                tasks.start_soon(self._watch_time)
                self.pump()
                task_status.started()

    async def connect(self, texts: Iterable[str], *, replace: bool = False) -> list[str]:
        """Add direct peers (``host[:port]``); those that cannot be are told in the result.

        Each text is resolved once, now.
        """
        found: list[DirectPeer] = []
        errors: list[str] = []
        for text in texts:
            try:
                found.append(await resolve(text))
            except ConfigError as err:
                errors.append(str(err))
        self.add(found, replace=replace)
        return errors

    def add(self, peers: Iterable[DirectPeer], *, replace: bool = False) -> None:
        """Keep connected to peers that :func:`resolve` has found, with ``replace`` to no others."""
        self.core.connect(peers, self.now(), replace=replace)
        self.pump()

    def now(self) -> float:
        """The time by which the core goes."""
        return self._clock.now()

    def forget(self, texts: Iterable[str]) -> None:
        """Remove direct peers."""
        self.core.forget(texts, self._clock.now())
        self.pump()

    def pump(self) -> None:
        """Carry out what the core wants; call after using :attr:`core` directly."""
        while taken := self.core.take_events():
            for event in taken:
                self._act(event)
        for ident in self.core.ready():
            if (link := self._links.get(ident)) is not None:
                link.wake.set()
        self._rearm.set()

    def _act(self, event: events.Event) -> None:
        if isinstance(event, events.Dial):
            if self._tasks is not None:
                self._tasks.start_soon(self._dial, event)
        elif isinstance(event, events.Close):
            log.info("connection closed", extra=kv(conn=event.conn, reason=event.reason))
            if (link := self._links.pop(event.conn, None)) is not None:
                link.last_words = event.last_words
                link.scope.cancel()
        elif self._handler is not None:
            self._handler(event)

    # --- tasks -----------------------------------------------------------------------------------

    async def _accept(self, listener: Any) -> None:
        readable = listener.extra(SocketAttribute.raw_socket)
        while True:
            # A stop is noticed here only: asyncio's accept, cancelled at the wrong moment, loses
            # the socket that it has. It waits for nobody once there is a connection.
            await anyio.wait_readable(readable)
            stream: SocketStream | None = None
            try:
                with anyio.move_on_after(ACCEPT_TIMEOUT_S, shield=True):
                    stream = await listener.accept()
            except OSError as err:
                # out of files, most likely: those in use will be given back
                log.warning("accept failed", extra=kv(err=err.strerror))
                await anyio.sleep(1)
                continue
            if stream is not None and self._tasks is not None:
                self._tasks.start_soon(self._serve_inbound, stream)

    async def _serve_inbound(self, stream: SocketStream) -> None:
        try:
            addr = _remote_addr(stream)
        except (anyio.ClosedResourceError, OSError):
            await stream.aclose()
            return
        if not self._limits.allow(addr.rpartition(":")[0], self.now()):
            self.refused += 1
            await stream.aclose()
            return
        ident = self.core.accepted(addr, self._clock.now())
        await self._serve(ident, stream)

    async def _dial(self, event: events.Dial) -> None:
        ip, port = split_addr(event.addr) or ("", 0)
        reason = "timed out"
        stream: SocketStream | None = None
        try:
            with anyio.move_on_after(DIAL_TIMEOUT_S):
                stream = await _connect(ip, port, self._host)
        except OSError as err:
            reason = _error_text(err)
        if stream is None:
            log.info("dial failed", extra=kv(addr=event.addr, reason=reason))
            self.core.dial_failed(event.conn, reason, self._clock.now())
            self.pump()
            return
        self.core.dialled(event.conn, event.addr, self._clock.now())
        await self._serve(event.conn, stream)

    async def _serve(self, ident: int, stream: SocketStream) -> None:
        """Read and write one connection until either end closes it."""
        link = self._links[ident] = _Link(stream)
        reason = ""
        async with stream:
            self.pump()
            with link.scope:
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._write, ident, link)
                        reason = await self._read(ident, stream)
                        tasks.cancel_scope.cancel()
                except* _SOCKET_ERRORS as group:
                    reason = _socket_error(group.exceptions[0])
            if link.last_words:
                with anyio.move_on_after(LAST_WORDS_S, shield=True), suppress(*_SOCKET_ERRORS):
                    await stream.send(link.last_words)
        self._links.pop(ident, None)
        self.core.closed(ident, self._clock.now(), reason)
        self.pump()

    async def _read(self, ident: int, stream: SocketStream) -> str:
        """Feed the core; the reason why there is no more ("" at the end of the stream)."""
        while True:
            try:
                data = await stream.receive(READ_LEN)
            except anyio.EndOfStream:
                return ""
            except (OSError, anyio.BrokenResourceError) as err:
                return _socket_error(err)
            self.core.receive(ident, data, self._clock.now())
            self.pump()

    async def _write(self, ident: int, link: _Link) -> None:
        while True:
            link.wake = anyio.Event()
            if data := self.core.bytes_to_send(ident, self._clock.now()):
                await link.stream.send(data)
            else:
                await link.wake.wait()

    async def _watch_time(self) -> None:
        while True:
            self._rearm = anyio.Event()
            deadline = self.core.next_deadline()
            wait_s = math.inf if deadline is None else deadline - self._clock.now()
            with anyio.move_on_after(max(0.0, wait_s)):
                await self._rearm.wait()
            self.core.timeout(self._clock.now())
            self.pump()


async def resolve(text: str) -> DirectPeer:
    """The user's ``host[:port]`` with its IPv4 address: sleeve runs over IPv4 only.

    Raises:
        ConfigError: malformed, or the name has no such address.
    """
    host, port = parse_peer_text(text)
    if ":" in host:  # IPv6, or nothing; the original's words
        raise ConfigError(f"address {host}:{port or 0}: too many colons in address")
    try:
        return DirectPeer(text, str(ipaddress.IPv4Address(host)), port)
    except ValueError:
        pass
    try:
        found = await anyio.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise ConfigError(
            f'peer "{text}": "{host}" has no IPv4 address; check the name, or give an address'
        ) from err
    return DirectPeer(text, str(found[0][4][0]), port)


async def _connect(ip: str, port: int, local_host: str) -> SocketStream:
    """Dial; ``local_host`` is the address to come from, empty for any.

    Raises:
        OSError: nobody listens there, or there is no way.
    """
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _cut_small(raw)  # said in the first segment: what makes sockets for us has no room for it
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local_host:
            raw.bind((local_host, 0))
        error = raw.connect_ex((ip, port))
        if error == errno.EINPROGRESS:
            await anyio.wait_writable(raw)
            error = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return await SocketStream.from_socket(raw)
    except BaseException:  # a dial that takes too long is cancelled: no socket is left behind
        raw.close()
        raise


def _cut_small(raw: socket.socket) -> None:
    """Have both ends of the connection, or of those to come, send segments that fit any path.

    A path that drops large packets without a word would otherwise swallow the first long gossip,
    and the data path's own discovery of the MTU needs the connection. The size is announced, which
    binds the other end, and the option binds ours: one end does it for both.
    """
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_LEN)


def _remote_addr(stream: SocketStream) -> str:
    """The other end as ``IP:port``; an IPv4 address that came in IPv6 clothes is undressed."""
    remote = stream.extra(SocketAttribute.remote_address)
    ip = ipaddress.ip_address(str(remote[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return join_addr(str(ip.ipv4_mapped), int(remote[1]))
    return join_addr(str(ip), int(remote[1]))


def _error_text(err: BaseException) -> str:
    """The system's words for an error; event loops wrap them in their own."""
    cause = err.__cause__ if isinstance(err.__cause__, OSError) else err
    text = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
    return text.lower() or type(err).__name__


def _socket_error(err: BaseException) -> str:
    """Why reading or writing ended; a reset is as good as an end of stream ("")."""
    cause = err.__cause__ if isinstance(err.__cause__, OSError) else err
    reset = isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE)
    return "" if reset else _error_text(err)


def _bind_error(host: str, port: int, err: OSError) -> str:
    where = join_addr(host, port) if host else f"port {port}"
    if err.errno == errno.EADDRINUSE:
        return f"--port: {where} is in use; is another router running here?"
    return f"--host, --port: cannot listen on {where}: {(err.strerror or str(err)).lower()}"
