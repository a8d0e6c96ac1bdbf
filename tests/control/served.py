"""The API on real sockets, beside the test: what it shows and what it was told."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from anyio.from_thread import start_blocking_portal

from base.errors import ConfigError
from control.api.app import Tenants, build_app
from control.api.server import ApiServer
from control.http_addr import listen_all
from control.node import NodeView
from tests.control.views import node


@dataclass
class Orders:
    """Commands that remember what they were told; peers that begin with "bad" are refused."""

    connected: list[tuple[list[str], bool]] = field(default_factory=list)
    forgotten: list[list[str]] = field(default_factory=list)

    async def connect(self, peers: list[str], *, replace: bool) -> list[str]:
        self.connected.append((peers, replace))
        return [f'peer "{peer}": no address\x1b' for peer in peers if peer.startswith("bad")]

    async def forget(self, peers: list[str]) -> None:
        if "disk-full" in peers:
            raise ConfigError("--db-prefix: the disk is full")
        self.forgotten.append(peers)


class Served:
    """A node's API on a Unix socket and on a port of loopback; ``view`` may be replaced."""

    def __init__(self, folder: Path, *, fixed: bool = False) -> None:
        self.view: NodeView = node()
        self.orders = Orders()
        self.unix = folder / "api.sock"
        self.tcp = f"127.0.0.1:{_free_port()}"
        self._commands = None if fixed else self.orders

    async def observe(self, macs_max: int) -> NodeView:
        return self.view

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            sockets = listen_all(f"{self.unix},{self.tcp}", held)
            server = ApiServer(build_app(self.observe, Tenants(self._commands)))
            with start_blocking_portal() as portal:
                done = portal.start_task_soon(server.serve, sockets)
                try:
                    yield
                finally:
                    portal.call(server.stop)
                    done.result(timeout=10)

    def client(self, *, tcp: bool = False) -> httpx.Client:
        if tcp:
            return httpx.Client(base_url=f"http://{self.tcp}", timeout=10, trust_env=False)
        transport = httpx.HTTPTransport(uds=str(self.unix))
        return httpx.Client(transport=transport, base_url="http://weft", timeout=10)

    def raw(self, data: bytes, *, tcp: bool = False) -> bytes:
        """What is answered to these bytes, to the end of the stream."""
        family = socket.AF_INET if tcp else socket.AF_UNIX
        host, _, port = self.tcp.partition(":")
        with socket.socket(family) as client:
            client.settimeout(10)
            client.connect((host, int(port)) if tcp else str(self.unix))
            client.sendall(data)
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
