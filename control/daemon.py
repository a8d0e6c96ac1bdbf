"""The control process: membership in, one router link and one HTTP API out.

Order: signals caught → options, password and state read → sockets bound → serving → membership
begun → READY. Everything a user can have got wrong is found before READY and ends the process with
one line. Membership is the mesh (:mod:`control.mesh_service`) or a peers file
(:mod:`control.static_service`).

SIGHUP rereads the file, SIGTERM and SIGINT stop. Beside the usual notifications the variable
X_WEFT_ROUTER says "ready" or "gone", which is how the supervisor learns of the router.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import SocketListener

from base.errors import WeftError
from base.ipc import RouterReport
from base.sdnotify import Notifier
from control.api.app import build_app
from control.api.server import ApiServer
from control.http_addr import listen_all
from control.identity import bridge_mac, choose_name, parse_name
from control.link import LinkServer, RouterUnavailableError
from control.mesh_service import MeshService, MeshSettings, parse_subnets
from control.node import NodeView
from control.password import find_password
from control.service import Service
from control.sockets import listen_unix
from control.state import DEFAULT_PREFIX, StateStore
from control.static_service import StaticService
from control.version import weft_version
from crypto.ciphers import offer
from mesh.core import CONN_LIMIT

ROUTER_VARIABLE: Final = "X_WEFT_ROUTER"
#: Names of the ciphers to offer, for tests and comparisons; unset: what this CPU does best.
CIPHERS_VARIABLE: Final = "WEFT_CIPHERS"
_STOP_S: Final = 3

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class ControlOptions:
    """What the command line says. ``http_addr``: see :mod:`control.http_addr`.

    With ``static``, a peers file, nothing behind it but ``name`` applies.
    """

    nickname: str
    control_socket: Path
    http_addr: str
    port: int
    host: str = ""
    static: Path | None = None
    name: str | None = None
    bridge: str = "weave"
    peers: tuple[str, ...] = ()
    resume: bool = False
    password_file: Path | None = None
    trusted_subnets: str = ""
    discovery: bool = True
    conn_limit: int = CONN_LIMIT
    db_prefix: str = DEFAULT_PREFIX


async def run(options: ControlOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: an option, the state or the peers file is wrong, or a socket is taken.
    """
    try:
        await _run(options)
    except BaseExceptionGroup as group:
        ours, others = group.split(WeftError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from None


async def _run(options: ControlOptions) -> None:
    with (
        anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        contextlib.ExitStack() as held,
    ):
        daemon = _Daemon(options, _service(options, held))
        link_socket = _link_socket(options, held)
        api_sockets = listen_all(options.http_addr, held)
        listener = await SocketListener.from_socket(link_socket)
        api = ApiServer(build_app(daemon.observe, daemon.service.commands))
        async with anyio.create_task_group() as tasks:
            await tasks.start(daemon.link.serve, listener)
            api_done = anyio.Event()
            tasks.start_soon(_serve_api, api, api_sockets, api_done)
            await tasks.start(daemon.service.run)
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
        daemon.service.stopped()


def _service(options: ControlOptions, held: contextlib.ExitStack) -> Service:
    if options.static is not None:
        return StaticService(options.static, options.name, options.nickname, options.port)
    password = find_password(options.password_file, os.environ)
    subnets = parse_subnets(options.trusted_subnets)
    given = None if options.name is None else parse_name(options.name)
    store = held.enter_context(StateStore.open(options.db_prefix))
    name = choose_name(given, bridge_mac(options.bridge), store.name(), random.SystemRandom())
    store.set_name(name)
    settings = MeshSettings(
        nickname=options.nickname,
        name=name,
        host=options.host,
        port=options.port,
        peers=options.peers,
        resume=options.resume,
        discovery=options.discovery,
        conn_limit=options.conn_limit,
        trusted_subnets=subnets,
        ciphers=os.environ.get(CIPHERS_VARIABLE) or offer(),
    )
    return MeshService(settings, password, store)


async def _serve_api(api: ApiServer, sockets: list[socket.socket], done: anyio.Event) -> None:
    try:
        if sockets:
            await api.serve(sockets)
    finally:
        done.set()


def _link_socket(options: ControlOptions, sockets: contextlib.ExitStack) -> socket.socket:
    listener = listen_unix(options.control_socket, 0o600, "--control-socket", "control")
    sockets.callback(listener.socket.close)
    sockets.callback(listener.remove)
    return listener.socket


class _Daemon:
    """State that the signals and the API share."""

    def __init__(self, options: ControlOptions, service: Service) -> None:
        self._options = options
        self.service = service
        self.notifier = Notifier()
        self.link = LinkServer(service.snapshot(), self._on_readiness, service.router_news)
        service.attach(self.link)

    def _status(self) -> str:
        router = "router ready" if self.link.core.ready else "waiting for the router"
        return f"{self.service.summary()}, {router}"

    def announce(self) -> None:
        """Tell the service manager that we serve (again)."""
        self.notifier.ready(self._status())

    def _on_readiness(self, ready: bool) -> None:
        self.notifier.send(
            **{ROUTER_VARIABLE: "ready" if ready else "gone", "STATUS": self._status()}
        )

    def reload(self) -> None:
        """SIGHUP."""
        self.notifier.reloading()
        self.service.reload()
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
            membership=self.service.membership(core.snapshot, report),
            snapshot=core.snapshot,
            ready=core.ready,
            path_mtus=core.path_mtus,
            report=report,
            now_s=time.time(),
        )


def _first(group: BaseExceptionGroup[WeftError]) -> WeftError:
    """The innermost first error of nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, WeftError):
        raise AssertionError("the group was split by this type")
    return error
