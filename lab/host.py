"""A host of the lab: an uplink to the switch, the bridge its router makes, its containers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec

from base.errors import PlatformError
from lab import plan
from lab.container import Container
from lab.namespaces import Namespace, Namespaces
from lab.node import Node
from lab.process import CommandError, Process

Role = Literal["launch", "control", "router"]

READY_TIMEOUT_S = 45.0
BRIDGE = "weave"


def weft_argv() -> list[str]:
    """How to start ``weft``: the command beside this Python, else the module it stands for."""
    command = Path(sys.executable).with_name("weft")
    return [str(command)] if command.exists() else [sys.executable, "-m", "control.cli"]


def weft_environment() -> dict[str, str]:
    """Our environment, with the folder we were imported from on the path of a started Python."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}:{inherited}" if inherited else root}


class Host(Node):
    """Host number ``index`` (from 1). ``port`` is its port on the switch."""

    uplink = "eth0"

    def __init__(
        self, namespaces: Namespaces, namespace: Namespace, index: int, switch: Node
    ) -> None:
        super().__init__(namespaces, namespace)
        self.index = index
        self.address = plan.underlay_address(index)
        self.peer_name = plan.peer_name(index)
        self.port = self.name
        self.containers: list[Container] = []
        self.weft: Process | None = None
        self._switch = switch
        self._inside = Path("/run", self.name)
        self.run_path = namespaces.run_path / self.name
        self.run_path.mkdir()

    @property
    def control_socket(self) -> str:
        """Path of the router-control socket, valid inside the lab."""
        return str(self._inside / "router.sock")

    @property
    def http_socket(self) -> str:
        """Path of the API socket, valid inside the lab."""
        return str(self._inside / "weave.sock")

    @property
    def peers_path(self) -> str:
        """Path of the peers file, valid inside the lab; edit it at ``run_path / "peers.toml"``."""
        return str(self._inside / "peers.toml")

    def write_peers(self, text: str) -> None:
        """Replace this host's peers file at once, as an editor would."""
        fresh = self.run_path / "peers.toml.new"
        fresh.write_text(text)
        fresh.rename(self.run_path / "peers.toml")

    @property
    def state_prefix(self) -> str:
        """The --db-prefix of this host, valid inside the lab."""
        return str(self._inside / "weft-")

    def write_password(self, password: str) -> str:
        """Put the password into a file for its owner alone; the path, valid inside the lab."""
        path = self.run_path / "password"
        path.touch(mode=0o600)
        path.write_text(f"{password}\n")
        return str(self._inside / "password")

    def launch_argv(
        self,
        *,
        mtu: int | Literal["auto"] = "auto",
        peers: Sequence[str] | None = None,
        password: str | None = None,
    ) -> list[str]:
        """The ``weft launch`` command line for this host.

        With ``peers``, as few as none, it joins the mesh; else it reads the lab's peers file.
        """
        argv = [*weft_argv(), "launch", "--nickname", self.name, "--weave-bridge", BRIDGE]
        argv += ["--control-socket", self.control_socket, "--http-addr", self.http_socket]
        argv += ["--host", self.address, "--mtu", str(mtu)]
        if peers is None:
            return [*argv, "--static", self.peers_path]
        argv += ["--name", self.peer_name, "--db-prefix", self.state_prefix]
        if password is not None:
            argv += ["--password-file", self.write_password(password)]
        return [*argv, *peers]

    async def start_weft(
        self,
        *options: str,
        mtu: int | Literal["auto"] = "auto",
        attach: bool = True,
        peers: Sequence[str] | None = None,
        password: str | None = None,
        cipher: str | None = None,
    ) -> None:
        """Start ``weft launch`` with ``options`` added, wait until it is ready, attach containers.

        ``peers`` as in :meth:`launch_argv`. ``cipher`` is the only one that the node offers.

        Raises:
            CommandError: it ended, or is not ready in time; the message has what it said.
        """
        notify = self.run_path / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.setblocking(False)
            environment = weft_environment()
            environment["NOTIFY_SOCKET"] = str(self._inside / "notify.sock")
            if cipher is not None:
                environment["WEFT_CIPHERS"] = cipher
            argv = self.launch_argv(mtu=mtu, peers=peers, password=password)
            self.weft = self.spawn(*argv, *options, env=environment)
            await self._until_ready(ready, self.weft)
        if attach:
            self.attach()

    async def _until_ready(self, ready: socket.socket, weft: Process) -> None:
        limit = time.monotonic() + READY_TIMEOUT_S
        while True:
            with suppress(BlockingIOError):
                if b"READY=1" in ready.recv(4096):
                    return
            if weft.returncode is not None or time.monotonic() > limit:
                raise CommandError(f"weft is not ready: {weft.describe()}")
            await anyio.sleep(0.01)

    def attach(self, bridge: str = BRIDGE) -> None:
        """Make every container a port of ``bridge``, with the bridge's MTU."""
        mtu = self.mtu(bridge)
        for container in self.containers:
            self.ip(f"link set {container.port} master {bridge} up")
            container.set_mtu(mtu)

    async def addresses(self) -> dict[str, Any]:
        """``weft status ipam`` as a record.

        Raises:
            CommandError: the daemon does not answer, or gives out no addresses.
        """
        text = await self.weft_command("status", "ipam", "--json", "--http-addr", self.http_socket)
        return msgspec.json.decode(text, type=dict[str, Any])

    async def kill_weft(self) -> None:
        """SIGKILL to all processes of the node at once, as a power cut is."""
        for role in ("launch", "control", "router"):
            for pid in self.pids(role):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.weft is not None:
            await self.weft.wait(10.0)
            self.weft.close()
            self.weft = None

    def alarms(self, last: int = 2) -> list[str]:
        """The last lines of weft's log here that tell of errors or warnings."""
        log = self.weft.stderr().splitlines() if self.weft else []
        return [line for line in log if " ERROR " in line or " WARNING " in line][-last:]

    async def stop_weft(self) -> int:
        """Stop ``weft launch`` by SIGTERM and return its exit status (0 if it was not running)."""
        if self.weft is None:
            return 0
        code = await self.weft.stop()
        self.weft.close()
        self.weft = None
        return code

    def pids(self, role: Role) -> list[int]:
        """Processes of weft on this host in ``role``, as this process sees their ids."""
        here = os.fstat(self.namespace.net_fd).st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if role.encode() in words[1:5] and (entry / "ns/net").stat().st_ino == here:
                    found.append(int(entry.name))
        return sorted(found)

    def kill_router(self, signal_number: int = signal.SIGKILL) -> int:
        """Signal the router process and return its id.

        Raises:
            CommandError: there is none.
        """
        return self._kill("router", signal_number)

    def kill_control(self, signal_number: int = signal.SIGKILL) -> int:
        """Signal the control process and return its id.

        Raises:
            CommandError: there is none.
        """
        return self._kill("control", signal_number)

    def _kill(self, role: Role, signal_number: int) -> int:
        pids = self.pids(role)
        if not pids:
            raise CommandError(f"{self.name}: no {role} process runs")
        os.kill(pids[0], signal_number)
        return pids[0]

    async def weft_command(self, *arguments: str, check: bool = True) -> str:
        """Output of a short ``weft`` command on this host.

        Raises:
            CommandError: it fails.
        """
        done = await self.run(
            *weft_argv(), *arguments, check=check, env=weft_environment(), timeout_s=20.0
        )
        return done.stdout

    async def report(self) -> dict[str, Any]:
        """The node's JSON report.

        Raises:
            CommandError: the daemon does not answer.
        """
        text = await self.weft_command("report", "--json", "--http-addr", self.http_socket)
        return msgspec.json.decode(text, type=dict[str, Any])

    async def weft_status(self, part: str = "") -> str:
        """The status text, or that of a part of it.

        Raises:
            CommandError: the daemon does not answer.
        """
        parts = [part] if part else []
        return await self.weft_command("status", *parts, "--http-addr", self.http_socket)

    async def connections(self) -> list[dict[str, Any]]:
        """Connections and targets of the node, as its report has them."""
        found: list[dict[str, Any]] = (await self.report())["Router"]["Connections"] or []
        return found

    async def connect(self, *peers: str, replace: bool = False) -> None:
        """``weft connect``.

        Raises:
            CommandError: a peer was refused.
        """
        switches = ["--replace"] if replace else []
        await self.weft_command("connect", "--http-addr", self.http_socket, *switches, *peers)

    async def forget(self, *peers: str) -> None:
        """``weft forget``.

        Raises:
            CommandError: it fails.
        """
        await self.weft_command("forget", "--http-addr", self.http_socket, *peers)

    async def ask_weft(self, command: str, *words: str) -> str:
        """Output of a ``weft`` command that asks the running node.

        Raises:
            CommandError: it fails.
        """
        return await self.weft_command(command, "--http-addr", self.http_socket, *words)

    async def attach_guest(self, name: str, words: Sequence[str]) -> list[str]:
        """``weft attach``: addresses of container ``name``.

        Raises:
            CommandError: it is refused.
        """
        return (await self.ask_weft("attach", *words, name)).split()

    async def detach_guest(self, name: str, words: Sequence[str] = ()) -> list[str]:
        """``weft detach``: addresses that container ``name`` had.

        Raises:
            CommandError: it fails.
        """
        return (await self.ask_weft("detach", *words, name)).split()

    async def expose(self, *words: str) -> list[str]:
        """``weft expose``: addresses of this host on the overlay.

        Raises:
            CommandError: it is refused.
        """
        return (await self.ask_weft("expose", *words)).split()

    async def hide(self, *words: str) -> list[str]:
        """``weft hide``: addresses that this host had.

        Raises:
            CommandError: it fails.
        """
        return (await self.ask_weft("hide", *words)).split()

    async def audit(self) -> dict[str, list[str]]:
        """``weft audit``: what is left over, by kind.

        Raises:
            CommandError: the node does not answer.
        """
        argv = ("audit", "--json", "--http-addr", self.http_socket)
        text = await self.weft_command(*argv, check=False)
        return msgspec.json.decode(text, type=dict[str, list[str]])

    async def wait_established(self, count: int, timeout_s: float = 15.0) -> None:
        """Wait until exactly ``count`` connections are established and nothing else is listed.

        Raises:
            CommandError: it takes too long; the message has the status.
        """
        limit = time.monotonic() + timeout_s
        while True:
            states = [each["State"] for each in await self.connections()]
            if states == ["established"] * count:
                return
            if time.monotonic() > limit:
                status = await self.weft_status("connections")
                raise CommandError(f"{self.name}: not {count} connections established:\n{status}")
            await anyio.sleep(0.1)

    def set_underlay_mtu(self, mtu: int) -> None:
        """MTU of this host's uplink; the switch port keeps its own."""
        self.ip(f"link set {self.uplink} mtu {mtu}")

    async def set_underlay_offloads(self, *, on: bool) -> None:
        """Switch the uplink's offloads at both ends.

        With them on, 64 KiB super-datagrams cross the switch in one piece: loss then hits many
        datagrams at once and MTUs of the switch do not bite.
        """
        await self.set_offloads(self.uplink, on=on)
        await self._switch.set_offloads(self.port, on=on)

    def set_rate(self, megabits: float | None) -> None:
        """Limit what reaches this host from the switch (token bucket); None lifts the limit."""
        device = ["dev", self.port, "root"]
        if megabits is None:
            with suppress(PlatformError):  # there was no limit
                self.namespaces.tool(self._switch.namespace, ["tc", "qdisc", "del", *device])
            return
        shape = ["tbf", "rate", f"{megabits:g}mbit", "burst", "128k", "latency", "20ms"]
        self.namespaces.tool(self._switch.namespace, ["tc", "qdisc", "replace", *device, *shape])

    def ports(self, bridge: str = BRIDGE) -> Sequence[str]:
        """Names of the bridge's ports."""
        return self.namespaces.call(
            self.namespace,
            lambda: sorted(os.listdir(f"/sys/class/net/{bridge}/brif")),  # noqa: PTH208
            mounts=True,
        )
