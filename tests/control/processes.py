"""Real ``weft`` processes for tests: started, fed with signals, always ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

ROOT = Path(__file__).parents[2]

PEERS = """\
[[peer]]
name = "ce:01:00:00:00:01"
nickname = "host1"
address = "10.0.0.1"

[[peer]]
name = "ce:02:00:00:00:02"
nickname = "host2"
address = "10.0.0.2"
"""

PEER_3 = """
[[peer]]
name = "ce:03:00:00:00:03"
nickname = "host3"
address = "10.0.0.3:7000"
"""


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Poll until true; fails the test when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def weft(
    *arguments: str, cwd: Path | None = None, apart: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a short command to its end; ``apart``: in a network namespace of its own (needs root)."""
    return subprocess.run(
        [
            *(("unshare", "--net") if apart else ()),
            *(sys.executable, "-m", "control.cli", *arguments),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class Running:
    """A long-lived process with its standard error in a file and a service manager listening."""

    def __init__(self, folder: Path, argv: Sequence[str], **environ: str) -> None:
        self.stderr_path = folder / f"stderr-{time.monotonic_ns()}"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / f"notify-{time.monotonic_ns()}"))
        self.manager.setblocking(False)
        self.notifications: list[str] = []
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                self.command([*argv]),
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": self.manager.getsockname()}
                | environ,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
            )

    def command(self, argv: list[str]) -> list[str]:
        """What is run for Python with these arguments; it must become that process."""
        return [sys.executable, *argv]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(encoding="utf-8")

    def told(self, text: str) -> int:
        """How often the service manager was told ``text``."""
        while True:
            try:
                self.notifications.append(self.manager.recv(4096).decode())
            except BlockingIOError:
                return sum(text in each.splitlines() for each in self.notifications)

    def until_told(self, text: str, times: int = 1, timeout_s: float = 30) -> None:
        def done() -> bool:
            if self.told(text) >= times:
                return True
            assert self.process.poll() is None, f"it ended early: {self.stderr}"
            return False

        until(done, f"notification {text!r}; stderr: {self.stderr}", timeout_s)

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, timeout_s: float = 15) -> int:
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Control(Running):
    """``weft control`` as host1 in ``folder``."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.peers = folder / "peers.toml"
        self.link = folder / "run" / "router.sock"
        self.api = folder / "run" / "weave.sock"
        if not self.peers.exists():
            self.peers.write_text(PEERS)
        argv = ["-m", "control.cli", "control", "--static", str(self.peers)]
        argv += ["--nickname", "host1", "--control-socket", str(self.link)]
        super().__init__(folder, [*argv, "--http-addr", str(self.api), *more])

    def get(self, path: str, **headers: str) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.api))
        with httpx.Client(transport=transport, base_url="http://weft", timeout=10) as client:
            return client.get(path, headers=headers)
