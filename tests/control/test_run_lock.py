"""The lock of ``weft launch`` between real processes, and ``weft stop``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from base.errors import ConfigError
from control.cli.stop import stop
from control.run_lock import RunLock
from tests.control.processes import PEERS, ROOT, Running, until, weft

_HOLD = """
import signal, sys, time
from pathlib import Path
from control.run_lock import RunLock
signal.signal(signal.SIGTERM, {on_term})
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    {before}
    time.sleep(60)
"""


@contextmanager
def _holder(
    sock: Path, on_term: str = "signal.SIG_DFL", before: str = ""
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(on_term=on_term, before=before), str(sock)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def sock(tmp_path: Path) -> Path:
    return tmp_path / "run" / "router.sock"


def test_nobody_holds_it(sock: Path) -> None:
    lock = RunLock(sock)
    assert lock.holder() is None
    with lock:
        assert lock.path == sock.parent / "launch.lock"
        assert lock.path.stat().st_mode & 0o777 == 0o600
    assert lock.holder() is None


def test_a_second_one_is_refused_and_names_the_first(sock: Path) -> None:
    with _holder(sock) as process:
        assert RunLock(sock).holder() == process.pid
        with pytest.raises(ConfigError) as caught:
            RunLock(sock).acquire()
        assert str(caught.value) == f"already running (pid {process.pid}); stop it with weft stop"
        process.kill()
        process.wait()
        with RunLock(sock):
            pass


def test_children_do_not_keep_it(sock: Path) -> None:
    child = "import subprocess; subprocess.Popen(['sleep', '5'], close_fds=False)"
    with _holder(sock, before=child) as process:
        time.sleep(0.2)
        process.kill()
        process.wait()
        assert RunLock(sock).holder() is None


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--control-socket: cannot lock .*; run as root or name"):
        RunLock(tmp_path / "file" / "router.sock").acquire()


def test_stop(sock: Path) -> None:
    said: list[str] = []
    assert not stop(sock, said.append)
    with _holder(sock) as process:
        assert stop(sock, said.append)
        assert process.wait() == -signal.SIGTERM
    assert said == []


def test_stop_says_that_it_waits(sock: Path) -> None:
    said: list[str] = []
    slow = "lambda *_: (time.sleep(0.5), sys.exit(0))"
    with _holder(sock, slow) as process:
        assert stop(sock, said.append, quiet_s=0.05)
        assert said == [f"weft: waiting for process {process.pid} to end"]


def test_stop_gives_up(sock: Path) -> None:
    with _holder(sock, "signal.SIG_IGN") as process:
        with pytest.raises(ConfigError) as caught:
            stop(sock, lambda _: None, quiet_s=0.05, patience_s=0.2)
        assert str(caught.value).startswith(
            f"stop: process {process.pid} has not ended in 0.2 s; see its log"
        )


def test_launch_and_stop(tmp_path: Path, sock: Path) -> None:
    """The real thing, as far as it gets without a router: control starts and waits."""
    peers = tmp_path / "peers.toml"
    peers.write_text(PEERS)
    api = sock.parent / "weave.sock"
    argv = ["-m", "control.cli", "launch", "--static", str(peers), "--nickname", "host1"]
    argv += ["--control-socket", str(sock), "--http-addr", str(api)]
    # a bridge that cannot be made keeps the router from touching this host
    with Running(tmp_path, [*argv, "--weave-bridge", "a-name-longer-than-15"]) as node:
        until(lambda: RunLock(sock).holder() is not None or node.process.poll() is not None, "lock")
        assert RunLock(sock).holder() in (node.pid, None)
        node.wait()
    done = weft("stop", "--control-socket", str(sock))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Weave is not running (ignore on Kubernetes).\n"
    with _holder(sock) as process:
        again = weft(*argv[2:])
        assert again.returncode == 1
        assert again.stderr == (
            f"weft: already running (pid {process.pid}); stop it with weft stop\n"
        )
        assert not sock.exists()
        stopped = weft("stop", "--control-socket", str(sock))
        assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
        assert process.wait() == -signal.SIGTERM
