"""The control process: one peers file in, one router link and one HTTP API out.

Order: signals caught → file read → sockets bound → serving → READY. Everything a user can have got
wrong is found before READY and ends the process with one line; afterwards nothing in the peers file
can: a bad file is logged and the old table stays in force.

SIGHUP rereads the file, SIGTERM and SIGINT stop. Beside the usual notifications the variable
X_WEFT_ROUTER says "ready" or "gone", which is how the supervisor learns of the router.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import SocketListener

from base.errors import ConfigError
from base.ipc import RouterReport
from base.log import kv
from base.sdnotify import Notifier
from control.api.app import build_app
from control.api.server import ApiServer
from control.link import LinkServer, RouterUnavailableError
from control.node import NodeView
from control.sockets import listen_unix
from control.static_peers import identify, parse_address, read_file, snapshot_of
from control.version import weft_version

ROUTER_VARIABLE: Final = "X_WEFT_ROUTER"
_STOP_S: Final = 3

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class ControlOptions:
    """What the command line says. ``http_addr``: absolute path, "ip:port" or "" for no API."""

    static: Path
    name: str | None
    nickname: str
    control_socket: Path
    http_addr: str
    port: int


async def run(options: ControlOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: an option or the peers file is wrong, or a socket is taken.
    """
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        daemon = _Daemon(options)
        with contextlib.ExitStack() as sockets:
            link_socket = _link_socket(options, sockets)
            api_socket = _api_socket(options, sockets)
            listener = await SocketListener.from_socket(link_socket)
            api = ApiServer(build_app(daemon.observe))
            async with anyio.create_task_group() as tasks:
                await tasks.start(daemon.link.serve, listener)
                api_done = anyio.Event()
                tasks.start_soon(_serve_api, api, api_socket, api_done)
                daemon.announce()
                async for signum in signals:
                    if signum != signal.SIGHUP:
                        break
                    daemon.reload()
                daemon.notifier.stopping()
                api.stop()
                with anyio.move_on_after(_STOP_S):
                    await api_done.wait()
                tasks.cancel_scope.cancel()


async def _serve_api(api: ApiServer, sock: socket.socket | None, done: anyio.Event) -> None:
    try:
        if sock is not None:
            await api.serve(sock)
    finally:
        done.set()


def _link_socket(options: ControlOptions, sockets: contextlib.ExitStack) -> socket.socket:
    listener = listen_unix(options.control_socket, 0o600, "--control-socket", "control")
    sockets.callback(listener.socket.close)
    sockets.callback(listener.remove)
    return listener.socket


def _api_socket(options: ControlOptions, sockets: contextlib.ExitStack) -> socket.socket | None:
    """The API's listening socket; closed and removed when ``sockets`` is left."""
    address = options.http_addr
    if not address:
        return None
    if address.startswith("/"):
        listener = listen_unix(Path(address), 0o660, "--http-addr", "control")
        sockets.callback(listener.socket.close)
        sockets.callback(listener.remove)
        return listener.socket
    try:
        addr, port = parse_address(address)
    except ConfigError as err:
        raise ConfigError(f"--http-addr: {err}, or an absolute path") from err
    if ":" not in address:
        raise ConfigError(f"--http-addr: {address} has no port; write {address}:6784")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sockets.callback(sock.close)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((addr, port))
        sock.listen(64)
    except OSError as err:
        raise ConfigError(
            f"--http-addr: cannot listen on {addr}:{port} ({err.strerror}); choose another"
        ) from err
    return sock


class _Daemon:
    """State that the signals and the API share."""

    def __init__(self, options: ControlOptions) -> None:
        self._options = options
        self._file = str(options.static)
        with _option_named("--static"):
            self._table = read_file(options.static)
        ourself = identify(self._table, self._file, options.name, options.nickname)
        self._name = ourself.name
        if ourself.port != options.port:
            log.warning(
                "peers send to another port than this router listens on",
                extra=kv(addr=f"{ourself.addr}:{ourself.port}", port=options.port),
            )
        self.notifier = Notifier()
        self.link = LinkServer(snapshot_of(self._table, ourself), self._on_readiness)

    def _status(self) -> str:
        router = "router ready" if self.link.core.ready else "waiting for the router"
        return f"{len(self._table.peers)} peers, {router}"

    def announce(self) -> None:
        """Tell the service manager that we serve (again)."""
        self.notifier.ready(self._status())

    def _on_readiness(self, ready: bool) -> None:
        self.notifier.send(
            **{ROUTER_VARIABLE: "ready" if ready else "gone", "STATUS": self._status()}
        )

    def reload(self) -> None:
        """Reread the peers file; on any error keep what is in force and say so once."""
        self.notifier.reloading()
        try:
            table = read_file(self._options.static)
            ourself = identify(table, self._file, str(self._name), "")
        except ConfigError as err:
            log.error("peers file not taken over, the old table stays", extra=kv(err=err))
        else:
            self._table = table
            changed = self.link.publish(snapshot_of(table, ourself))
            log.info("peers file reread", extra=kv(changed=changed, peers=len(table.peers)))
        self.announce()

    async def observe(self, macs_max: int) -> NodeView:
        """A picture of the node for the API."""
        report: RouterReport | None = None
        with contextlib.suppress(RouterUnavailableError):
            report = await self.link.request_report(macs_max)
        core = self.link.core
        return NodeView(
            version=weft_version(),
            port=self._options.port,
            control_pid=os.getpid(),
            router_pid=core.router_pid,
            table=self._table,
            snapshot=core.snapshot,
            ready=core.ready,
            path_mtus=core.path_mtus,
            report=report,
            now_s=time.time(),
        )


@contextlib.contextmanager
def _option_named(option: str) -> Iterator[None]:
    """Put the option in front of a ConfigError's message."""
    try:
        yield
    except ConfigError as err:
        raise ConfigError(f"{option}: {err}") from err
