"""Traffic between two containers, as numbers: TCP, small UDP datagrams, round trips.

Every function takes a :class:`Pair` and runs one bounded measurement in it; nothing else should run
meanwhile. TCP goodput and UDP packets are counted at the receiver. Units are in the names.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec

from base.errors import WeftError
from lab.container import Container
from lab.process import Process

UDP_PORT = 5299
UDP_PAYLOAD_BYTES = 64
UDP_BATCH = 64
CONGESTION_CONTROL = "cubic"
TOOLS = Path(__file__).resolve().parent.parent / "tools"


class LoadError(WeftError):
    """A measurement could not be made."""


@dataclass(slots=True, frozen=True)
class Pair:
    """Two containers; traffic goes from the client to the server. ``variant`` names the path."""

    variant: str
    client: Container
    server: Container


class UdpResult(msgspec.Struct, frozen=True):
    """What one end of udp_blast printed."""

    datagrams: int
    bytes: int
    seconds: float
    per_second: float
    blocked: int = 0


@dataclass(slots=True, frozen=True)
class UdpRates:
    """Datagrams per second that arrived, and that were sent."""

    received_pps: float
    sent_pps: float


def build_tool(name: str, build_dir: Path) -> Path:
    """Compile ``bench/tools/NAME.c`` unless a newer binary is in ``build_dir``; the binary's path.

    Raises:
        LoadError: no compiler, or it refused.
    """
    source = TOOLS / f"{name}.c"
    binary = build_dir / name
    if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
        return binary
    build_dir.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-D_GNU_SOURCE", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    try:
        subprocess.run(
            [*command, "-o", str(binary), str(source)],
            check=True,
            capture_output=True,
            text=True,
        )
    except OSError as err:
        raise LoadError(f"cc: {err.strerror}; install gcc") from err
    except subprocess.CalledProcessError as err:
        raise LoadError(f"cc failed: {err.stderr}") from err
    return binary


async def _await_text(process: Process, text: str, timeout_s: float = 5.0) -> None:
    """Wait until a process has said ``text`` on its error stream."""
    with anyio.move_on_after(timeout_s):
        while text not in process.stderr():
            if process.returncode is not None:
                raise LoadError(process.describe())
            await anyio.sleep(0.01)
        return
    raise LoadError(f"no {text!r} within {timeout_s:g} s: {process.describe()}")


async def tcp_gbps(pair: Pair, *, streams: int, seconds: int) -> float:
    """Goodput of ``streams`` TCP connections together, client to server, in Gbit/s."""
    result = await pair.client.iperf(
        pair.server, seconds=seconds, streams=streams, congestion=CONGESTION_CONTROL
    )
    return result.gbps


async def udp_pps(pair: Pair, tool: Path, *, payload: int, seconds: float) -> UdpRates:
    """Datagrams of ``payload`` bytes per second, sent and arrived.

    Raises:
        LoadError: the tool failed.
    """
    receiver = pair.server.spawn(str(tool), "recv", str(UDP_PORT), f"{seconds:g}")
    try:
        await _await_text(receiver, "ready")
        target = [pair.server.ipv4, str(UDP_PORT), f"{seconds + 0.2:g}"]
        load = [str(payload), str(UDP_BATCH)]
        sent = await pair.client.run(str(tool), "send", *target, *load, timeout_s=seconds + 10)
        if await receiver.wait(10.0) != 0:
            raise LoadError(f"{pair.variant}: {receiver.describe()}")
        return UdpRates(
            received_pps=msgspec.json.decode(receiver.stdout(), type=UdpResult).per_second,
            sent_pps=msgspec.json.decode(sent.stdout, type=UdpResult).per_second,
        )
    finally:
        receiver.close()


async def rtt_us(pair: Pair, *, count: int, interval_s: float) -> float:
    """Median round trip of ``count`` pings in microseconds.

    Raises:
        LoadError: not a single answer.
    """
    result = await pair.client.ping(pair.server, count=count, interval_s=interval_s)
    if not result.ok:
        raise LoadError(f"{pair.variant}: no answer from {pair.server.name} to ping")
    return result.median_ms * 1000
