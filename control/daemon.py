"""The control process: membership in, one router link and one HTTP API out.

Order: signals caught → options, password and state read → sockets bound → serving → membership
begun → READY. Everything a user can have got wrong is found before READY and ends the process with
one line. Membership is the mesh (:mod:`control.mesh_service`) or a peers file
(:mod:`control.static_service`); what else a node consists of: :mod:`control.parts`.

SIGHUP rereads the file, SIGTERM and SIGINT stop. Beside the usual notifications the variable
X_WEFT_ROUTER says "ready" or "gone", which is how the supervisor learns of the router.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import SocketListener, TaskGroup

from base.errors import WeftError
from base.ipc import RouterReport
from base.sdnotify import Notifier
from cni.codes import Code
from control.api.app import Tenants, build_app, build_metrics_app, build_status_app
from control.api.attach import ContainerHost
from control.api.server import ApiServer
from control.cli.node_options import ControlOptions
from control.cni.exposure import HostExposure
from control.cni.readiness import cni_problem
from control.cni.service import CNI_SOCKET, CniService, CniSettings
from control.host.conntrack import forget_flows
from control.http_addr import listen_all
from control.ipam_addresses import IpamAddresses, owned_by
from control.link import LinkServer, RouterUnavailableError
from control.node import NodeView
from control.parts import Parts
from control.sockets import listen_unix
from control.version import weft_version

ROUTER_VARIABLE: Final = "X_WEFT_ROUTER"
_STOP_S: Final = 3


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
        parts = Parts.of(options, held)
        daemon = _Daemon(options, parts)
        link_socket = _link_socket(options, held)
        servers = _servers(options, daemon, held)
        listener = await SocketListener.from_socket(link_socket)
        async with anyio.create_task_group() as tasks:
            await tasks.start(daemon.link.serve, listener)
            await parts.start(tasks)
            await _start_cni(options, daemon, held, tasks)
            api_done = anyio.Event()
            tasks.start_soon(_serve_api, servers, api_done)
            await tasks.start(daemon.service.run)
            daemon.announce()
            async for signum in signals:
                if signum != signal.SIGHUP:
                    break
                daemon.reload()
            daemon.notifier.stopping()
            if daemon.ipam is not None:
                daemon.ipam.end()
            for server, _ in servers:
                server.stop()
            with anyio.move_on_after(_STOP_S):
                await api_done.wait()
            tasks.cancel_scope.cancel()
        if daemon.link.core.ready is None:  # weft launch stops the router first
            await anyio.to_thread.run_sync(forget_flows, options.port)
        daemon.service.stopped()


async def _start_cni(
    options: ControlOptions, daemon: _Daemon, held: contextlib.ExitStack, tasks: TaskGroup
) -> None:
    """The socket that container runtimes' plugins come to; not with a peers file."""
    if daemon.containers is None:
        return
    settings = CniSettings(
        options.control_socket.with_name(CNI_SOCKET), Path(options.db_prefix).parent
    )
    cni = CniService(
        settings,
        daemon.containers.attachments,
        None if daemon.ipam is None else IpamAddresses(daemon.ipam),
        None if daemon.host is None else HostExposure(daemon.host, options.bridge),
        daemon.cni_problem,
    )
    held.callback(cni.close)
    await tasks.start(cni.run)


def _servers(
    options: ControlOptions, daemon: _Daemon, held: contextlib.ExitStack
) -> list[tuple[ApiServer, list[socket.socket]]]:
    """The API, and the pages that may be read elsewhere, each with what it listens on."""
    tenants = Tenants(
        commands=daemon.service.commands,
        ipam=daemon.ipam,
        tracker="no-masq-local" if options.no_masq_local else "",
        containers=_container_host(options, daemon),
        host=daemon.host,
    )
    found = [(build_app(daemon.observe, tenants), listen_all(options.http_addr, held))]
    for option, text, build in (
        ("--status-addr", options.status_addr, build_status_app),
        ("--metrics-addr", options.metrics_addr, build_metrics_app),
    ):
        sockets = listen_all(text, held, option, anywhere=True)
        found.append((build(daemon.observe), sockets))
    return [(ApiServer(app), sockets) for app, sockets in found if sockets]


def _container_host(options: ControlOptions, daemon: _Daemon) -> ContainerHost | None:
    if daemon.containers is None:
        return None
    ipam = daemon.ipam
    return ContainerHost(
        daemon.containers.attachments,
        options.bridge,
        owned=None if ipam is None else lambda: owned_by(ipam),
    )


async def _serve_api(
    servers: list[tuple[ApiServer, list[socket.socket]]], done: anyio.Event
) -> None:
    try:
        async with anyio.create_task_group() as tasks:
            for server, sockets in servers:
                tasks.start_soon(server.serve, sockets)
    finally:
        done.set()


def _link_socket(options: ControlOptions, sockets: contextlib.ExitStack) -> socket.socket:
    listener = listen_unix(options.control_socket, 0o600, "--control-socket", "control")
    sockets.callback(listener.socket.close)
    sockets.callback(listener.remove)
    return listener.socket


class _Daemon:
    """State that the signals and the API share."""

    def __init__(self, options: ControlOptions, parts: Parts) -> None:
        self._options = options
        service = self.service = parts.service
        self.ipam = parts.ipam
        self.containers = parts.containers
        self.host = parts.host
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
        if ready and self.containers is not None:
            self.containers.mend_soon()  # the router has made the bridge, or found it
        self.notifier.send(
            **{ROUTER_VARIABLE: "ready" if ready else "gone", "STATUS": self._status()}
        )

    def reload(self) -> None:
        """SIGHUP."""
        self.notifier.reloading()
        self.service.reload()
        self.announce()

    def cni_problem(self) -> tuple[Code, str] | None:
        """What keeps this node from serving containers."""
        view = None if self.ipam is None else self.ipam.view()
        membership = self.service.membership(self.link.core.snapshot, None)
        return cni_problem(self.link.core.ready is not None, view, membership)

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
            ipam=None if self.ipam is None else self.ipam.view(),
            host=None if self.host is None else self.host.view(),
            containers=None if self.containers is None else self.containers.attachments.view(),
        )


def _first(group: BaseExceptionGroup[WeftError]) -> WeftError:
    """The innermost first error of nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, WeftError):
        raise AssertionError("the group was split by this type")
    return error
