"""What the tests of running systems share: marks, waiting, pictures of a host, checked traffic.

No fixture here; see conftest.py. Traffic comes from tools/stream.c, whose receiver knows every byte
beforehand.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
import msgspec
import pytest

from lab import plan
from lab.container import Container
from lab.host import Host
from lab.lab import Lab
from lab.node import Node
from lab.process import Process

TOOLS = Path(__file__).resolve().parent / "tools"
BENCH_TOOLS = Path(__file__).resolve().parents[2] / "bench" / "tools"
#: Ten milliseconds and more are rounded up to clock ticks by ping, to 16 ms on many kernels.
PING_INTERVAL_S = 0.009
PASSWORD = "correct horse battery"
CIPHERS = ("secretbox", "aes-256-gcm")
#: IP, UDP, sender, record header, inner Ethernet (spec: sleeve 9.1).
OVERHEAD = 62
_ANSWER = re.compile(r"(?m)^\[([0-9.]+)\] \d+ bytes from .* icmp_seq=(\d+) .*time=[0-9.]+ ms$")
_SENT = re.compile(r"(?m)^(\d+) packets transmitted")
_STREAM_PORT = "7001"
_PICTURE_NOISE = ("qdisc", "stats64", "stats")


def netns(timeout_s: float) -> list[pytest.MarkDecorator]:
    """Marks of a module whose every test starts routers and ends within ``timeout_s``."""
    return [
        pytest.mark.netns,
        pytest.mark.anyio,
        pytest.mark.timeout(timeout_s),
        pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    ]


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool],
    what: str,
    timeout_s: float = 5.0,
    poll_s: float = 0.02,
) -> float:
    """Wait until ``condition`` holds; how long that took.

    Raises:
        AssertionError: naming ``what`` did not happen.
    """
    begun = time.monotonic()
    while True:
        answer = condition()
        if not isinstance(answer, bool):
            answer = await answer
        waited = time.monotonic() - begun
        if answer:
            return waited
        assert waited < timeout_s, f"not within {timeout_s:g} s: {what}"
        await anyio.sleep(poll_s)


async def counters(host: Host) -> dict[str, int]:
    """The node's counters as its report tells them."""
    found: dict[str, int] = (await host.report())["Counters"]
    return found


def proc_file(pid: int, name: str) -> bytes:
    """What /proc tells of a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def http_get(host: Host, path: str) -> str:
    """The body of what the node's API answers on its Unix socket."""
    transport = httpx.AsyncHTTPTransport(uds=str(host.run_path / "weave.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://weft") as client:
        return (await client.get(path)).raise_for_status().text


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Counters that moved, and by how much."""
    return {key: value - before[key] for key, value in after.items() if value != before[key]}


async def picture(node: Node) -> tuple[Any, Any]:
    """All links and addresses of a host, without what changes by itself."""
    found = []
    for what in ("link", "addr"):
        text = (await node.run("ip", "-json", "-details", what)).stdout
        entries: list[dict[str, Any]] = msgspec.json.decode(text, type=list[dict[str, Any]])
        for entry in entries:
            for key in _PICTURE_NOISE:
                entry.pop(key, None)
            _forget_timers(entry)
        found.append(entries)
    return found[0], found[1]


def _forget_timers(entry: dict[str, Any]) -> None:
    """A bridge's clocks tick on their own."""
    info = entry.get("linkinfo", {})
    for part in ("info_data", "info_slave_data"):
        for key in list(info.get(part, {})):
            if "timer" in key:
                del info[part][key]


def has_interface(node: Node, name: str) -> bool:
    """Whether there is an interface of that name."""
    with suppress(OSError):
        return bool(node.read(f"/sys/class/net/{name}/ifindex"))
    return False


def attachment(container: Container) -> tuple[Any, ...]:
    """What a restart of the router must leave alone: both veth ends and the bridge port."""
    host = container.host
    ends = [
        node.read(f"/sys/class/net/{name}/{what}")
        for node, name in ((host, container.port), (container, container.interface))
        for what in ("ifindex", "iflink", "address", "mtu", "flags")
    ]
    return os.fstat(container.namespace.net_fd).st_ino, ends, host.ports()


class Pinging:
    """A ping every 10 ms in the background, for seeing what got lost while something happened.

    ``async with Pinging(one, other) as ping: ...``; afterwards :attr:`missing` and so on hold.
    """

    def __init__(self, source: Container, target: Container) -> None:
        self._source = source
        self._target = target
        self._process: Process
        self.sent = 0
        #: Numbers without an answer, the last two sent (perhaps still on their way) left out.
        self.missing: list[int] = []
        #: Longest time between two answers.
        self.longest_gap_s = 0.0

    async def __aenter__(self) -> Self:
        argv = ("ping", "-n", "-D", "-i", f"{PING_INTERVAL_S}", "-W", "1", self._target.ipv4)
        self._process = self._source.spawn(*argv)
        await until(lambda: self.answers > 0, "the first answer", 3.0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._process.stop(signal.SIGINT)
            said = self._process.stdout()
        finally:
            self._process.close()
        found = [(float(stamp), int(number)) for stamp, number in _ANSWER.findall(said)]
        summary = _SENT.search(said)
        assert summary is not None, said[-300:]
        self.sent = int(summary[1])
        self.missing = sorted(set(range(1, self.sent - 1)) - {number for _, number in found})
        self.longest_gap_s = max(
            (after - before for (before, _), (after, _) in pairwise(found)), default=0.0
        )

    @property
    def answers(self) -> int:
        """Answers so far."""
        return len(_ANSWER.findall(self._process.stdout()))

    async def back(self, timeout_s: float) -> float:
        """Wait until answers flow again: ten within a fifth of a second."""

        async def flowing() -> bool:
            before = self.answers
            await anyio.sleep(0.2)
            return self.answers - before >= 10

        return await until(flowing, "answers flow again", timeout_s)


@dataclass(slots=True, frozen=True)
class TcpFlow:
    """One stream that checks itself. ``bytes_`` or ``seconds`` says when it ends."""

    source: Container
    target: Container
    address: str
    bytes_: int = 0
    seconds: float = 0.0
    seed: int = 1


@dataclass(slots=True, frozen=True)
class UdpFlow:
    """Datagrams of all sizes up to ``size_max``, each verified and confirmed."""

    source: Container
    target: Container
    address: str
    count: int
    size_max: int
    seed: int = 1
    df: bool = True


class Sent(msgspec.Struct, frozen=True):
    """What the sending end printed."""

    bytes: int = 0
    seconds: float = 0.0
    gbps: float = 0.0
    datagrams: int = 0
    resent: int = 0


async def send(
    tool: Path, flow: TcpFlow | UdpFlow, timeout_s: float = 60.0, port: str = _STREAM_PORT
) -> Sent:
    """Run one flow to its end; the receiver has verified every byte.

    Raises:
        AssertionError: something arrived changed, or not at all; the message says what.
    """
    if isinstance(flow, TcpFlow):
        receive = ["tcp-recv", port, "1"]
        argv = ["tcp-send", flow.address, port, str(flow.bytes_), f"{flow.seconds:g}"]
        argv.append(str(flow.seed))
    else:
        receive = ["udp-recv", port, str(flow.count)]
        argv = ["udp-send", flow.address, port, str(flow.count), str(flow.size_max)]
        argv += [str(flow.seed), str(int(flow.df))]
    receiver = flow.target.spawn(str(tool), *receive)
    sender: Process | None = None
    try:
        await until(lambda: "ready" in receiver.stderr(), "the receiver listens")
        sender = flow.source.spawn(str(tool), *argv)
        with suppress(TimeoutError):
            await sender.wait(timeout_s)
        said = f"{sender.describe()}; {receiver.describe()}"
        assert sender.returncode == 0, said
        assert await receiver.wait(10.0) == 0, said
        return msgspec.json.decode(sender.stdout(), type=Sent)
    finally:
        receiver.close()
        if sender is not None:
            sender.close()


def received_bytes(container: Container) -> int:
    """What has arrived at a container's interface so far."""
    return int(container.read(f"/sys/class/net/{container.interface}/statistics/rx_bytes"))


def stray_host(lab_switch: Node, node: Node, address: str) -> None:
    """Plug an empty namespace of the lab into the underlay's switch."""
    port = node.name
    peer = f"name eth0 netns {node.namespace.net_path}"
    lab_switch.ip(
        f"link add {port} mtu 65535 type veth peer {peer}", f"link set {port} master sw0 up"
    )
    node.ip(f"addr add {address}/24 dev eth0", "link set eth0 up")


def new_container(lab: Lab, host: Host, number: int, home: int | None = None) -> Container:
    """One more container, attached to the bridge; ``home`` is the host whose plan gave addresses.

    A container that moves is a new one elsewhere with the addresses and MAC of the old.
    """
    home = host.index if home is None else home
    container = lab.new_container(
        host,
        f"x{host.index}.{number}",
        mac=plan.container_mac(home, number),
        ipv4=f"{plan.container_address(home, number)}/{plan.OVERLAY_PREFIX_LEN}",
        ipv6=f"{plan.container_address6(home, number)}/{plan.OVERLAY6_PREFIX_LEN}",
    )
    host.ip(f"link set {container.port} master weave up")
    container.set_mtu(host.mtu("weave"))
    return container
