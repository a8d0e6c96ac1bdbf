"""A container runtime as small as can be: calls the executable, and looks at what it made."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.control.processes import ROOT

STUB = ROOT / "cni" / "stub" / "weft-cni"
NAMES = ("weave-net", "weave-ipam", "weft-host-local")
REFERENCE = Path("/usr/lib/cni")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Outcome:
    """What a call of a plugin gave."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The result of a call that succeeded."""
        assert self.status == 0, (self.stdout, self.stderr)
        shape: dict[str, Any] = json.loads(self.stdout)
        return shape

    @property
    def error(self) -> dict[str, Any]:
        """The error object of one that failed."""
        assert self.status != 0, self.stdout
        shape: dict[str, Any] = json.loads(self.stdout)
        assert set(shape) <= {"cniVersion", "code", "msg", "details"}
        return shape

    @property
    def code(self) -> int:
        """Its code."""
        return int(self.error["code"])

    def nothing(self) -> None:
        """It succeeded in silence."""
        assert (self.status, self.stdout) == (0, b""), (self.stdout, self.stderr)


class Pod:
    """A network namespace without a name, held by a descriptor of ours."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.fd = -1
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        assert self.fd >= 0, "no privilege for network namespaces"

    def _make(self) -> None:
        if _libc.unshare(_CLONE_NEWNET) == 0:
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def netns(self) -> str:
        """A path to it for other processes."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, *argv: str, check: bool = True) -> str:
        """Output of a command in it."""
        return inside(self.netns, *argv, check=check)

    def links(self) -> set[str]:
        """Names of its interfaces."""
        return {one["ifname"] for one in json.loads(self.run("ip", "-j", "link"))}

    def addresses(self, ifname: str = "eth0") -> list[str]:
        """Its IPv4 addresses."""
        (shown,) = json.loads(self.run("ip", "-j", "-4", "addr", "show", "dev", ifname))
        return [f"{one['local']}/{one['prefixlen']}" for one in shown.get("addr_info", [])]

    def routes(self) -> dict[str, str]:
        """Destination → gateway, empty for none."""
        shown = json.loads(self.run("ip", "-j", "-4", "route"))
        return {one["dst"]: one.get("gateway", "") for one in shown}

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def inside(netns: str, *argv: str, check: bool = True) -> str:
    """Output of a command in a network namespace."""
    done = subprocess.run(
        ["nsenter", f"--net={netns}", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


class Node:
    """The service in a namespace of its own with a bridge, and the executables that reach it."""

    def __init__(self, folder: Path, *ranges: str) -> None:
        self.folder = folder
        self._ranges = ranges
        self.process: subprocess.Popen[str] | None = None
        self._stderr = (folder / "stderr").open("w+")
        self.host = Pod("host")
        self.bins = folder / "bin"
        self.bins.mkdir()
        shutil.copy(STUB, self.bins / "weft-cni")
        for name in NAMES:
            (self.bins / name).symlink_to("weft-cni")
        self.pods: list[Pod] = []

    def bridge(self, name: str = "weave", address: str = "", mtu: int = 1376) -> None:
        """Make a bridge on the host."""
        host = self.host.run
        mac = f"0a:00:00:00:00:{len(name):02x}"  # else it follows that of the first port
        host("ip", "link", "add", name, "address", mac, "type", "bridge")
        host("ip", "link", "set", name, "mtu", str(mtu), "up")  # kept when ports come and go
        if address:
            host("ip", "addr", "add", address, "dev", name)

    def start(self) -> None:
        """Start the service and wait until it answers."""
        argv = [sys.executable, "-m", "tests.control.cni.serve", str(self.folder), *self._ranges]
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.host.netns}", *argv],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log()

    def log(self) -> str:
        """What the service has said."""
        return (self.folder / "stderr").read_text()

    def stop(self, signum: int = signal.SIGKILL) -> None:
        """End the service."""
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.wait(15)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def pod(self, container: str) -> Pod:
        """A new container's namespace."""
        pod = Pod(container)
        self.pods.append(pod)
        return pod

    def config(self, **keys: Any) -> dict[str, Any]:
        """A network's configuration; None leaves a key out."""
        made = {
            "cniVersion": "1.0.0",
            "name": "weave",
            "type": "weave-net",
            "routerSocket": str(self.folder / "cni.sock"),
            "pendingDir": str(self.pending),
            **keys,
        }
        return {key: value for key, value in made.items() if value is not None}

    @property
    def pending(self) -> Path:
        """Where releases wait."""
        return self.folder / "state" / "pending-del"

    def records(self) -> list[str]:
        """Records of addresses, and of attachments as their containers."""
        folder = self.folder / "state" / "cni"
        found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return found + [str(row["container"]) for row in self.attachments()]

    def attachments(self) -> list[dict[str, Any]]:
        """The records of attachments, read beside the service."""
        path = self.folder / "weft-data.db"
        copy = self.folder / "copy"
        copy.mkdir(exist_ok=True)
        for file in self.folder.glob("weft-data.db*"):
            shutil.copy(file, copy)
        with contextlib.closing(sqlite3.connect(copy / path.name)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM attachment")]

    def book(self) -> dict[str, list[str]]:
        """Who has which address."""
        path = self.folder / "book.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def call(
        self,
        command: str,
        config: Mapping[str, Any] | bytes | None = None,
        pod: Pod | None = None,
        *,
        ifname: str = "eth0",
        plugin: str | None = None,
        path: str | None = None,
        **variables: str | None,
    ) -> Outcome:
        """Call a plugin as a runtime does. Variables that are None are left out."""
        given = self.config() if config is None else config
        stdin = given if isinstance(given, bytes) else json.dumps(given).encode()
        name = plugin or (str(given["type"]) if isinstance(given, Mapping) else "weave-net")
        environment: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_PATH": f"{self.bins}:{REFERENCE}" if path is None else path,
            "CNI_IFNAME": ifname,
        }
        if pod is not None:
            environment |= {"CNI_CONTAINERID": pod.container, "CNI_NETNS": pod.netns}
        environment |= variables
        return run_plugin(self.executable(name), stdin, environment, self.host.netns)

    def executable(self, name: str) -> Path:
        """The first of that name, ours before the reference's."""
        ours = self.bins / name
        return ours if ours.exists() else REFERENCE / name

    def host_links(self) -> list[str]:
        """Ports of bridges on the host."""
        shown = json.loads(self.host.run("ip", "-j", "link"))
        return [one["ifname"] for one in shown if one.get("master")]

    def audit(self) -> None:
        """Nothing of any container is left."""
        assert self.host_links() == []
        assert [name for name in self.records() if not name.startswith("weave-expose")] == []
        assert [one for one in self.book() if not one.startswith("weave:expose")] == []
        assert not self.pending.exists() or list(self.pending.iterdir()) == []

    def reset(self) -> None:
        """After a test that left something: away with all of it."""
        self.stop()
        for link in self.host_links():
            self.host.run("ip", "link", "del", link, check=False)
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        for file in (*self.folder.glob("weft-*"), self.folder / "book.json"):
            file.unlink(missing_ok=True)
        self.start()

    def close(self) -> None:
        self.stop()
        self._stderr.close()
        for pod in (*self.pods, self.host):
            pod.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_plugin(
    path: Path, stdin: bytes, environment: Mapping[str, str | None], netns: str
) -> Outcome:
    """Run a plugin's executable on a host."""
    done = subprocess.run(
        ["nsenter", f"--net={netns}", str(path)],
        input=stdin,
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@contextlib.contextmanager
def running(folder: Path, *ranges: str, address: str = "") -> Iterator[Node]:
    """A node with its bridge and its service."""
    with Node(folder, *ranges) as node:
        node.bridge(address=address)
        node.start()
        yield node
