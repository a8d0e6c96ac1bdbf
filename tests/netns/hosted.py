"""One host with containers and the world outside, in namespaces; its host service in a thread.

::

    c1 c2 ... ══ bridge weave ─ host ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ outside

No router: what is under test is the host.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from control.addresses import Addresses
from control.host.service import HostService, HostSettings
from lab.namespaces import Namespace, Namespaces
from lab.syscalls import CLONE_NEWNET, setns

T = TypeVar("T")

PATIENCE_S: Final = 20.0
#: For what must not arrive.
SILENCE_S: Final = 0.4
HOST: Final = "192.0.2.1"
OUTSIDE: Final = "192.0.2.2"


class World:
    """Everything; use as a context manager. Several stand side by side."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self.spaces = Namespaces()
        self._held.callback(self.spaces.close)
        try:
            self.host = self.spaces.create("host")
            self.outside = self.spaces.create("outside")
            self.spaces.ip(
                self.host,
                [
                    f"link add eth0 type veth peer name eth0 netns {self.outside.net_path}",
                    f"addr add {HOST}/24 dev eth0",
                    "link set eth0 up",
                    "link set lo up",
                    "link add weave type bridge mcast_snooping 0",
                    "link set weave up",
                ],
            )
            self.spaces.ip(
                self.outside,
                [f"addr add {OUTSIDE}/24 dev eth0", "link set eth0 up", "link set lo up"],
            )
            self.spaces.sysctl(self.host, {"net/ipv4/ip_forward": 1})
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def container(self, number: int, *addresses: str, gateway: str = "") -> Namespace:
        """One more on the bridge, by ``vethwepl<number>``."""
        made = self.spaces.create(f"c{number}")
        port = f"vethwepl{number}"
        self.spaces.ip(
            self.host,
            [
                f"link add {port} type veth peer name eth0 netns {made.net_path}",
                f"link set {port} master weave up",
            ],
        )
        lines = [f"addr add {each} dev eth0" for each in addresses]
        lines += ["link set eth0 up", "link set lo up"]
        lines += [f"route add default via {gateway}"] if gateway else []
        self.spaces.ip(made, lines)
        return made

    def sh(self, command: str, where: Namespace | None = None) -> str:
        """Output of a shell command, on the host if nothing else is said."""
        return self.spaces.tool(where or self.host, ["/bin/sh", "-ec", command])

    def serve(
        self, addresses: Addresses | None = None, settings: HostSettings | None = None
    ) -> Served:
        """Start the host service; it ends with the world."""
        served = Served(HostService(settings or HostSettings(), addresses), self.host)
        self._held.callback(served.stop)
        return served

    # Traffic -------------------------------------------------------------------------------------

    def listen(self, where: Namespace, address: str, port: int) -> socket.socket:
        """A TCP server; the kernel accepts by itself."""

        def make() -> socket.socket:
            made = socket.create_server((address, port))
            made.settimeout(PATIENCE_S)
            return made

        made = self.spaces.call(where, make)
        self._held.callback(made.close)
        return made

    def connect(
        self, where: Namespace, address: str, port: int, patience_s: float = PATIENCE_S
    ) -> bool:
        """Whether a TCP connection comes about."""
        with self.spaces.call(where, lambda: socket.socket()) as client:  # noqa: PLW0108
            client.settimeout(patience_s)
            try:
                client.connect((address, port))
            except OSError:
                return False
            return True

    def source_seen(
        self,
        server: socket.socket,
        client: Namespace,
        address: str,
        port: int,
        patience_s: float = PATIENCE_S,
    ) -> str | None:
        """Source address that a server sees of a client's connection; None if there is none."""
        if not self.connect(client, address, port, patience_s):
            return None
        accepted, source = server.accept()
        accepted.close()
        return str(source[0])

    def multicast(self, where: Namespace, address: str, *, listen: bool) -> socket.socket:
        """A UDP socket of group 224.1.2.3 port 5000 on the interface with ``address``."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own = socket.inet_aton(address)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            if listen:
                made.bind(("224.1.2.3", 5000))
                group = struct.pack("4s4s", socket.inet_aton("224.1.2.3"), own)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            made.settimeout(PATIENCE_S)
            return made

        made = self.spaces.call(where, make)
        self._held.callback(made.close)
        return made


class Served:
    """A host service on a loop of its own, in a thread that lives in the host's namespace."""

    def __init__(self, service: HostService, where: Namespace) -> None:
        self.service = service
        self._ready = threading.Event()
        self._portal: BlockingPortal
        enter = (where.net_fd, CLONE_NEWNET)
        self._pool = ThreadPoolExecutor(1, initializer=setns, initargs=enter)
        self._done = self._pool.submit(anyio.run, self._run)
        if not self._ready.wait(PATIENCE_S):
            self._done.result(timeout=1)
            raise AssertionError("the host service does not start")

    async def _run(self) -> None:
        async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
            await tasks.start(self.service.run)
            self._portal = portal
            self._ready.set()
            await portal.sleep_until_stopped()
            tasks.cancel_scope.cancel()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Run a coroutine function of the service."""
        result: T = self._portal.call(function, *arguments)
        return result

    def tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a plain method of the service, on its loop."""
        self._portal.call(function, *arguments)

    def stop(self) -> None:
        """End it; what it has installed stays. Idempotent."""
        if not self._done.done():
            self._portal.call(self._portal.stop)
        self._done.result(timeout=PATIENCE_S)
        self._pool.shutdown()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)
