"""A container: a namespace with one veth to its host's bridge, and what one measures from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio

from lab import vlan
from lab.measure import IperfResult, PingResult, parse_iperf, parse_ping
from lab.namespaces import Namespace, Namespaces
from lab.node import Node
from lab.process import CommandError, Process

if TYPE_CHECKING:
    from lab.host import Host

IPERF_PORT = 5201
_LISTEN = "0A"
_SERVER_START_TIMEOUT_S = 5.0


class Container(Node):
    """``interface`` here is ``port`` on the host; addresses are without prefix length."""

    interface = "eth0"

    def __init__(
        self,
        namespaces: Namespaces,
        namespace: Namespace,
        *,
        host: Host,
        port: str,
        mac: str,
        ipv4: str,
        ipv6: str,
    ) -> None:
        super().__init__(namespaces, namespace)
        self.host = host
        self.port = port
        self.mac = mac
        self.ipv4 = ipv4
        self.ipv6 = ipv6

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU of both ends of the veth, so that neither end drops what the other sends."""
        self.host.ip(f"link set {self.port} mtu {mtu}")
        self.ip(f"link set {self.interface} mtu {mtu}")

    async def offloads(self, *, on: bool) -> None:
        """Switch the offloads of the container's end on or off."""
        await self.set_offloads(self.interface, on=on)

    def add_vlan(self, vid: int, *addresses: str) -> str:
        """Add a VLAN interface with ``addresses`` (each with prefix length) and return its name.

        Raises:
            PlatformError: the kernel can neither make VLAN devices nor load the BPF stand-in.
        """
        return vlan.add(self, self.interface, vid, addresses)

    async def ping(
        self,
        target: Container | str,
        *,
        count: int = 3,
        interval_s: float = 0.01,
        size: int = 56,
        ipv6: bool = False,
        dont_fragment: bool | None = None,
        wait_s: float = 1.0,
    ) -> PingResult:
        """Ping; never raises for lost answers.

        ``size`` is ICMP payload bytes. ``dont_fragment`` True sets DF and heeds what the path says,
        False clears DF, None is the kernel's default.

        Raises:
            CommandError: ping cannot run at all (bad address, no route).
        """
        argv = ["ping", "-n", "-c", str(count), "-i", f"{interval_s:g}", "-s", str(size)]
        argv += ["-W", f"{wait_s:g}", "-6" if ipv6 else "-4"]
        if dont_fragment is not None:
            argv += ["-M", "do" if dont_fragment else "dont"]
        argv.append(self._address(target, ipv6))
        limit = count * max(interval_s, wait_s) + wait_s + 5.0
        done = await self.run(*argv, check=False, timeout_s=limit)
        if "packets transmitted" not in done.stdout:
            raise CommandError(f"{self.name}: {' '.join(argv)}: {done.stderr or done.stdout}")
        return parse_ping(done.stdout)

    async def iperf(
        self,
        target: Container,
        *,
        seconds: int = 1,
        udp: bool = False,
        streams: int = 1,
        length: int | None = None,
        bitrate: str | None = None,
        congestion: str = "cubic",
        ipv6: bool = False,
        address: str | None = None,
    ) -> IperfResult:
        """Send to ``target`` with iperf3, whose server runs there for just this test.

        ``seconds`` are whole ones; ``length`` is bytes per write (UDP: per datagram); ``bitrate``
        iperf3's ``-b`` (UDP without it: as fast as it can).

        Raises:
            CommandError: iperf3 fails or does not end in time.
            MeasureError: its output is not what we can read.
        """
        server = await target.serve_iperf()
        try:
            argv = ["iperf3", "-J", "-c", address or self._address(target, ipv6)]
            argv += ["-p", str(IPERF_PORT), "-t", str(seconds), "-P", str(streams)]
            argv += ["--connect-timeout", "3000"]
            if udp:
                argv += ["-u", "-b", bitrate or "0"]
            else:
                argv += ["-C", congestion]
                if bitrate is not None:
                    argv += ["-b", bitrate]
            if length is not None:
                argv += ["-l", str(length)]
            done = await self.run(*argv, check=False, timeout_s=seconds + 10.0)
            if done.returncode < 0 or not done.stdout:
                raise CommandError(f"{self.name}: {' '.join(argv)}: {done.stderr or 'killed'}")
            return parse_iperf(done.stdout)
        finally:
            server.close()

    async def serve_iperf(self) -> Process:
        """Start a one-off iperf3 server here and return once it listens; the caller closes it.

        Raises:
            CommandError: it does not come up.
        """
        server = self.spawn("iperf3", "-s", "-1", "-p", str(IPERF_PORT))
        limit = time.monotonic() + _SERVER_START_TIMEOUT_S
        while not _listens(server.pid, IPERF_PORT):
            if server.returncode is not None or time.monotonic() > limit:
                message = server.describe()
                server.close()
                raise CommandError(message)
            await anyio.sleep(0.005)
        return server

    @staticmethod
    def _address(target: Container | str, ipv6: bool) -> str:
        if isinstance(target, str):
            return target
        return target.ipv6 if ipv6 else target.ipv4


def _listens(pid: int, port: int) -> bool:
    """Whether somebody in the network namespace of ``pid`` listens on TCP ``port``."""
    tables: tuple[Literal["tcp"], Literal["tcp6"]] = ("tcp", "tcp6")
    for table in tables:
        try:
            text = Path(f"/proc/{pid}/net/{table}").read_text()
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False
