"""The IPAM benchmark: a real control process asked over its Unix socket, its state on a real disk.

Rounds take turns between the disk alone, one caller and 64 callers, so that what else the machine
does meanwhile falls on all of them; figures are medians over rounds. Callers are one small C
program (bench/tools/http_load.c), each on a connection that is kept alive and with a name of its
own for every address.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import msgspec

from base.errors import WeftError
from bench import environment
from bench.ipam.core import Merging, merging
from bench.ipam.disk import Disk
from bench.ipam.disk import measure as measure_disk
from bench.ipam.full_range import FullRange
from bench.system.load import build_tool

CALLERS: Final = (1, 64)
_START_S: Final = 30.0
_HOST: Final = "127.0.9.1"


class Load(msgspec.Struct, frozen=True):
    """What http_load printed."""

    answered: int
    refused: int
    seconds: float
    per_second: float
    median_us: float
    p99_us: float


class IpamResult(msgspec.Struct):
    """Everything measured; ``loads`` by number of callers, then by round."""

    disk: list[Disk]
    loads: dict[int, list[Load]]
    control_rss_mb: float
    merging: Merging
    full_range: FullRange | None = None


def run(build: Path, rounds: int = 5, seconds: float = 2.0, *, full: bool = True) -> IpamResult:
    """All of it; state files are made, and removed, beside ``build``.

    Raises:
        WeftError: something could not be measured.
    """
    tool = build_tool("http_load", build)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        result = IpamResult([], {callers: [] for callers in CALLERS}, 0.0, merging())
        with _control(Path(folder)) as (process, api):
            for number in range(rounds):
                result.disk.append(measure_disk(Path(folder), seconds / 2))
                for callers in CALLERS:
                    name = f"/ip/round{number}-{callers}-"
                    result.loads[callers].append(_load(tool, api, callers, seconds, name))
            result.control_rss_mb = _peak_rss_mb(process.pid)
        if full:
            result.full_range = _full_range(Path(folder))
    return result


def _load(tool: Path, api: Path, callers: int, seconds: float, prefix: str) -> Load:
    command = [str(tool), str(api), str(callers), f"{seconds:g}", "POST", prefix]
    found = msgspec.json.decode(_output(command, seconds + 30), type=Load)
    if found.refused:
        raise WeftError(f"{found.refused} of {found.answered} requests were refused")
    print(f"  {callers} callers: {found.per_second:.0f} allocations/s", flush=True)
    return found


def _full_range(folder: Path) -> FullRange:
    command = [sys.executable, "-P", "-m", "bench.ipam.full_range", str(folder)]
    found = msgspec.json.decode(_output(command, 600), type=FullRange)
    print(f"  a whole /12: {found.seconds:.1f} s, {found.rss_mb:.0f} MB", flush=True)
    return found


def _output(command: list[str], timeout_s: float) -> bytes:
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": str(environment.ROOT)},
            capture_output=True,
            timeout=timeout_s,
            check=True,
        )
    except subprocess.CalledProcessError as err:
        raise WeftError(f"{command[0]} failed: {err.stderr.decode()[-2000:]}") from err
    except subprocess.TimeoutExpired as err:
        raise WeftError(f"{command[0]} took more than {timeout_s:g} s") from err
    return done.stdout


@contextmanager
def _control(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A control process, alone in its mesh, that has its ring."""
    api = folder / "api.sock"
    command = [sys.executable, "-P", "-m", "control.cli", "control", "--nickname", "bench"]
    command += ["--db-prefix", f"{folder}/weft-", "--ipalloc-init", "consensus=1"]
    command += ["--host", _HOST, "--port", str(_free_port()), "--http-addr", str(api)]
    command += ["--control-socket", str(folder / "router.sock"), "--log-level", "warning"]
    command += ["--no-packet-filter", "--weave-bridge", "weftbench"]  # the host is not ours
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(environment.ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _prime(process, api)
        yield process, api
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _prime(process: subprocess.Popen[bytes], api: Path) -> None:
    deadline = time.monotonic() + _START_S
    transport = httpx.HTTPTransport(uds=str(api))
    with httpx.Client(transport=transport, base_url="http://weft", timeout=_START_S) as client:
        while time.monotonic() < deadline:
            try:
                client.get("/ring").raise_for_status()
            except httpx.TransportError:
                if process.poll() is not None:
                    said = process.communicate()[1].decode()
                    raise WeftError(f"control ended at once: {said}") from None
                time.sleep(0.05)
            else:
                return
    raise WeftError("control did not answer in time")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _peak_rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise WeftError(f"no VmHWM of process {pid}")
