"""However a lab ends, nothing of it is left. Needs root.

Each test runs a lab in a process of its own, whose environment carries a token that all
descendants inherit: no process with it may remain. That the kernel let go of the network namespace
too is seen by a witness: a veth whose other end sits in the lab's namespace vanishes with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.namespaces import Namespaces
from tests.lab.leftovers import GRACE_S, environment, eventually, processes

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

LAB = """
from base.importing import importing

with importing():
    print("begun", flush=True)
    import json, os, sys, anyio
    from lab.lab import Lab

async def main():
    async with Lab(2) as lab:
        lab.raw_pair(), lab.vxlan_pair()
        # One child that leaves its session, one that ignores what it can.
        lab.hosts[0].spawn("sh", "-c", "setsid sleep 1000 & exec sleep 1000")
        child = lab.hosts[0].spawn("sh", "-c", "trap '' INT TERM HUP; sleep 1000; sleep 1000")
        lab.hosts[1].spawn(sys.executable, "-c", "import os, time; os.fork(); time.sleep(1000)")
        print(json.dumps({"child": child.pid}), flush=True)
        await anyio.wait_readable(0)
        if os.read(0, 100).strip() == b"raise":
            raise RuntimeError("on purpose")

anyio.run(main)
"""


def _outside() -> tuple[str, str, list[str], str]:
    """What a lab might leave where everybody sees it."""
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mounts").read_text()
    own = sorted(str(path) for folder in ("/tmp", "/run") for path in Path(folder).glob("*weft*"))
    return names, links, own, mounts


class Running:
    """A lab in a process of its own, and the witness tied to its first host."""

    def __init__(self, witness: Namespaces) -> None:
        self.token = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAB],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(self.token),
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"
        facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.namespaces = witness
        self.here = witness.create("witness")
        peer = f"name twin netns /proc/{facts['child']}/ns/net"
        witness.ip(self.here, [f"link add witness type veth peer {peer}"])
        assert len(processes(self.token)) >= 7

    def witnessed(self) -> bool:
        """Whether the lab's namespace still exists."""
        return "witness" in self.namespaces.read(self.here, "/proc/net/dev")

    def end(self, how: str) -> int:
        """End it by a line on its standard input or by a signal; its exit status."""
        if how.startswith("SIG"):
            self.process.send_signal(signal.Signals[how])
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(how + "\n")
            self.process.stdin.flush()
        return self.process.wait(GRACE_S)

    def close(self) -> None:
        """Leave nothing even when the test failed."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def running() -> Iterator[Running]:
    """A lab that stands, with processes that would rather stay."""
    witness = Namespaces()
    lab = Running(witness)
    yield lab
    lab.close()
    witness.close()


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("leave", {0}),
        ("raise", {1}),
        ("SIGINT", {1, 130, -signal.SIGINT}),
        ("SIGTERM", {-signal.SIGTERM}),
        ("SIGHUP", {-signal.SIGHUP}),
        ("SIGKILL", {-signal.SIGKILL}),
        ("SIGQUIT", {-signal.SIGQUIT}),
    ],
)
def test_nothing_stays(running: Running, how: str, status: set[int]) -> None:
    assert running.witnessed()
    assert running.end(how) in status
    assert eventually(lambda: not processes(running.token)), processes(running.token)
    assert eventually(lambda: not running.witnessed())


@pytest.mark.parametrize("how", ["leave", "SIGKILL"])
def test_nothing_is_to_be_seen_outside(how: str) -> None:
    before = _outside()
    witness = Namespaces()
    lab = Running(witness)
    try:
        assert _outside() == before  # not even while it runs
        lab.end(how)
        assert eventually(lambda: not processes(lab.token))
        assert _outside() == before
    finally:
        lab.close()
        witness.close()


@pytest.mark.parametrize("delay_s", [0.0, 0.08, 0.18, 0.23, 0.28, 0.33, 0.38])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_interrupted_while_it_builds(delay_s: float, number: signal.Signals) -> None:
    """Counted from the program's first own line: before it, Python itself may lose a SIGINT.

    importlib forgets a module's lock in a weak reference's callback, whose KeyboardInterrupt is
    printed and goes no further.
    """
    token = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", LAB],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(token),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(delay_s)
        process.send_signal(number)
        assert process.wait(GRACE_S) != 0
        assert eventually(lambda: not processes(token)), processes(token)
    finally:
        process.kill()
        process.communicate()


def test_the_guardian_killed_takes_all_with_it(running: Running) -> None:
    guardians = [
        pid
        for pid in processes(running.token)
        if b"guardian.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(guardians) == 2
    os.kill(min(guardians), signal.SIGKILL)
    alone = [running.process.pid]
    assert eventually(lambda: processes(running.token) == alone), processes(running.token)
