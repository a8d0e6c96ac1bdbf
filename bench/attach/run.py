"""The attach benchmark: containers attached by a warm daemon, beside what does the same otherwise.

A host with a bridge is a network namespace; each container a fresh, empty one that is made
beforehand. In turns, so that what else the machine does falls on all:

- ``weft``: a request to a real control process over its Unix socket: address allocated and
  recorded durably, interface made, announced, bridge port forwarding;
- ``ip``: the same interface by ``ip`` and ``nsenter``, its address known beforehand, no records;
- ``bridge``: the reference CNI plugins ``bridge`` with ``host-local``, where they are installed.

Milliseconds of wall time for each; what is attached is taken away again, outside of the time.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from base.errors import WeftError
from bench import environment

PLUGINS: Final = Path("/usr/lib/cni")
_BRIDGE: Final = "weave"
_MTU: Final = 1376
_START_S: Final = 30.0
_TOOL_TIMEOUT_S: Final = 30.0
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


class AttachResult(msgspec.Struct):
    """Times in milliseconds, by way and then by round."""

    ways: dict[str, list[list[float]]]
    detach: list[list[float]]


def run(build: Path, rounds: int = 5, count: int = 30) -> AttachResult:
    """All of it; needs root. State files are made, and removed, beside ``build``.

    Raises:
        WeftError: something could not be measured.
    """
    build.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=build) as folder,
        ThreadPoolExecutor(1, initializer=_new_namespace) as host,
    ):
        return host.submit(_measure, Path(folder), rounds, count).result()


def _new_namespace() -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise WeftError("a network namespace cannot be made; run as root")


def _measure(folder: Path, rounds: int, count: int) -> AttachResult:
    _ip(
        "link set lo up",
        f"link add {_BRIDGE} type bridge mcast_snooping 0",
        f"link set {_BRIDGE} mtu {_MTU} up",
        f"addr add 10.32.0.1/12 dev {_BRIDGE}",
    )
    with _control(folder) as client:
        ways: list[_Way] = [_Weft(client), _ByHand()]
        if all((PLUGINS / name).exists() for name in ("bridge", "host-local")):
            ways.append(_Plugin(folder))
        result = AttachResult({way.name: [] for way in ways}, [])
        for way in ways:
            _round(way, 3)  # warm
        for _ in range(rounds):
            for way in ways:
                attach, detach = _round(way, count)
                result.ways[way.name].append(attach)
                if way.name == "weft":
                    result.detach.append(detach)
    return result


class _Way(ABC):
    """A way to attach the container of number ``number`` whose namespace is at ``path``."""

    name: str

    @abstractmethod
    def attach(self, number: int, path: str) -> None:
        """What is timed."""

    @abstractmethod
    def detach(self, number: int, path: str) -> None:
        """The reverse."""


def _round(way: _Way, count: int) -> tuple[list[float], list[float]]:
    attach: list[float] = []
    detach: list[float] = []
    for number in range(count):
        fd = _namespace()
        path = f"/proc/{os.getpid()}/fd/{fd}"
        try:
            attach.append(_timed(way.attach, number, path))
            detach.append(_timed(way.detach, number, path))
        finally:
            os.close(fd)
    print(f"  {way.name}: {sorted(attach)[count // 2]:.1f} ms", flush=True)
    return attach, detach


def _timed(function: Callable[[int, str], None], number: int, path: str) -> float:
    start = time.perf_counter()
    function(number, path)
    return (time.perf_counter() - start) * 1e3


def _namespace() -> int:
    """A descriptor of a new namespace; it is gone when that is closed."""
    made: list[int] = []

    def make() -> None:
        _new_namespace()
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    return made[0]


class _Weft(_Way):
    name = "weft"

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def attach(self, number: int, path: str) -> None:
        answer = self._client.post(f"/attach/bench{number}", json={"netns": path})
        if not answer.is_success:
            raise WeftError(f"attach was refused: {answer.text}")

    def detach(self, number: int, path: str) -> None:  # noqa: ARG002
        self._client.delete(f"/attach/bench{number}", params={"all": "true"}).raise_for_status()


class _ByHand(_Way):
    """With as few processes as it goes."""

    name = "ip"

    def attach(self, number: int, path: str) -> None:
        port = f"hand{number}"
        _ip(
            f"link add {port} mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {path}",
            f"link set {port} master {_BRIDGE} up",
            f"link set {port} type bridge_slave hairpin on",
        )
        inside = (
            f"addr add 10.47.0.{number + 2}/12 dev eth0",
            "link set eth0 up",
            "route add 224.0.0.0/4 dev eth0",
        )
        _tool(["nsenter", f"--net={path}", "ip", "-batch", "-"], "\n".join(inside) + "\n")

    def detach(self, number: int, path: str) -> None:  # noqa: ARG002
        _ip(f"link del hand{number}")


class _Plugin(_Way):
    """The reference plugins as a runtime calls them."""

    name = "bridge"

    def __init__(self, folder: Path) -> None:
        ipam = {
            "type": "host-local",
            "subnet": "10.90.0.0/16",
            "dataDir": str(folder / "host-local"),
        }
        self._config = json.dumps(
            {
                "cniVersion": "0.4.0",
                "name": "reference",
                "type": "bridge",
                "bridge": "reference0",
                "hairpinMode": True,
                "ipam": ipam,
            }
        )

    def attach(self, number: int, path: str) -> None:
        self._call("ADD", number, path)

    def detach(self, number: int, path: str) -> None:
        self._call("DEL", number, path)

    def _call(self, command: str, number: int, path: str) -> None:
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"bench{number}",
            "CNI_NETNS": path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
            "PATH": os.environ.get("PATH", ""),
        }
        _tool([str(PLUGINS / "bridge")], self._config, environ)


def _ip(*lines: str) -> None:
    _tool(["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _tool(argv: list[str], text: str, environ: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(
            argv,
            input=text,
            text=True,
            env=environ,
            capture_output=True,
            check=True,
            timeout=_TOOL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as err:
        said = getattr(err, "stderr", None) or getattr(err, "stdout", None) or err
        raise WeftError(f"{argv[0]} failed: {said}") from err


@contextmanager
def _control(folder: Path) -> Iterator[httpx.Client]:
    """A client of a control process, alone in its mesh, that has its ring."""
    api = folder / "api.sock"
    command = [sys.executable, "-P", "-m", "control.cli", "control", "--nickname", "bench"]
    command += ["--db-prefix", f"{folder}/weft-", "--ipalloc-init", "consensus=1"]
    command += ["--http-addr", str(api), "--control-socket", str(folder / "router.sock")]
    process = subprocess.Popen(
        [*command, "--log-level", "error"],
        env=os.environ | {"PYTHONPATH": str(environment.ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        transport = httpx.HTTPTransport(uds=str(api))
        with httpx.Client(transport=transport, base_url="http://weft", timeout=_START_S) as client:
            _await_ring(process, api, client)
            yield client
    finally:
        process.terminate()
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _await_ring(process: subprocess.Popen[Any], api: Path, client: httpx.Client) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WeftError(f"control ended at once: {process.communicate()[1].decode()}")
        if api.exists():
            try:
                client.get("/ring").raise_for_status()
            except httpx.TransportError:
                pass
            else:
                return
        time.sleep(0.05)
    raise WeftError("control did not answer in time")
