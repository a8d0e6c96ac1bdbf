"""The supervisor over real processes: start, deaths, order of the stop, signals, watchdog."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.control.processes import PEERS, Running, until

#: A control that says it is ready, that the router is, and notes each SIGHUP and its end.
CONTROL = """
import pathlib, signal, sys, time
from base.sdnotify import Notifier
notes = pathlib.Path(sys.argv[1])
def note(text):
    with notes.open("a") as out: out.write(text + "\\n")
def hup(*_):
    note("control hup"); Notifier().ready("reread")
def term(*_):
    note("control stop"); sys.exit(0)
signal.signal(signal.SIGHUP, hup); signal.signal(signal.SIGTERM, term)
time.sleep(float(sys.argv[2]))
note("control start")
Notifier().ready("listening"); Notifier().send(X_WEFT_ROUTER="ready")
while True: time.sleep(60)
"""

#: A router that notes its start and end.
ROUTER = """
import pathlib, signal, sys, time
notes = pathlib.Path(sys.argv[1])
def note(text):
    with notes.open("a") as out: out.write(text + "\\n")
def term(*_):
    time.sleep(float(sys.argv[2])); note("router stop"); sys.exit(0)
signal.signal(signal.SIGTERM, term)
note("router start")
while True: time.sleep(60)
"""


class Supervised(Running):
    """A supervisor over two commands, and what these noted."""

    def __init__(self, folder: Path, control: list[str], router: list[str], **environ: str) -> None:
        self.notes_path = folder / "notes"
        self.notes_path.touch()
        argv = ["-m", "tests.control.supervise", json.dumps(control), json.dumps(router)]
        super().__init__(folder, argv, **environ)

    @property
    def notes(self) -> list[str]:
        return self.notes_path.read_text().splitlines()

    def child(self, name: str) -> int:
        """Pid of the child started last under this name."""
        return int(re.findall(rf"child started child={name} pid=(\d+)", self.stderr)[-1])


def _python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def _scripted(folder: Path, *, slow_s: float = 0, stop_s: float = 0, **env: str) -> Supervised:
    notes = folder / "notes"
    return Supervised(
        folder, _python(CONTROL, notes, slow_s), _python(ROUTER, notes, stop_s), **env
    )


def _started_again(weft: Supervised, starts: int) -> bool:
    return weft.notes.count("router start") > starts


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"


def test_control_first_then_router_and_the_reverse_on_stop(tmp_path: Path) -> None:
    with _scripted(tmp_path, slow_s=0.3, stop_s=0.2) as weft:
        weft.until_told("READY=1")
        until(lambda: "router start" in weft.notes, "router started")
        weft.signal(signal.SIGTERM)
        assert weft.wait() == 0
        assert weft.notes == ["control start", "router start", "router stop", "control stop"]
        assert weft.told("STOPPING=1") == 1


def test_a_killed_router_is_back_at_once_and_control_is_left_alone(tmp_path: Path) -> None:
    with _scripted(tmp_path) as weft:
        weft.until_told("READY=1")
        until(lambda: weft.notes.count("router start") == 1, "router started")
        control = weft.child("control")
        for _ in range(2):
            starts = weft.notes.count("router start")
            killed_at = time.monotonic()
            os.kill(weft.child("router"), signal.SIGKILL)
            until(partial(_started_again, weft, starts), "router back")
            assert time.monotonic() - killed_at < 1
        assert weft.child("control") == control
        assert "reason=SIGKILL" in weft.stderr
        assert weft.told("READY=1") == 1


def test_a_killed_control_is_back(tmp_path: Path) -> None:
    with _scripted(tmp_path) as weft:
        weft.until_told("READY=1")
        router_starts = weft.notes.count("router start")
        os.kill(weft.child("control"), signal.SIGKILL)
        until(lambda: weft.notes.count("control start") == 2, "control back")
        assert weft.notes.count("router start") - router_starts <= 1


def test_sighup_goes_to_control_even_before_it_listens(tmp_path: Path) -> None:
    with _scripted(tmp_path, slow_s=0.5) as weft:
        until(lambda: "child started child=control" in weft.stderr, "control started")
        weft.signal(signal.SIGHUP)
        until(lambda: "control hup" in weft.notes, "SIGHUP passed on")
        weft.until_told("READY=1")
        weft.signal(signal.SIGHUP)
        until(lambda: weft.notes.count("control hup") == 2, "SIGHUP passed on")
        weft.until_told("STATUS=reread", times=2)
        assert weft.told("RELOADING=1") == 2


@pytest.mark.parametrize("who", ["control", "router"])
def test_a_child_that_refuses_ends_it_all_with_one_line(tmp_path: Path, who: str) -> None:
    refuse = _python("import sys; sys.exit('weft: --port: 6783 is in use; choose another')")
    notes = tmp_path / "notes"
    control = (
        refuse if who == "control" else _python(CONTROL.replace(".send(X", ".send(Y"), notes, 0)
    )
    router = _python(ROUTER, notes, 0) if who == "control" else refuse
    with Supervised(tmp_path, control, router) as weft:
        assert weft.wait() == 1
        lines = [line for line in weft.stderr.splitlines() if " DEBUG " not in line]
        assert lines == ["weft: --port: 6783 is in use; choose another"]
        assert "router start" not in weft.notes, "the host was touched"
        assert weft.told("READY=1") == 0


def test_status_one_after_readiness_is_a_death_like_any_other(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = ROUTER + "\n"
    once = code.replace(
        "while True: time.sleep(60)",
        "time.sleep(1) if len(notes.read_text().split('router start')) < 3 else time.sleep(60)\n"
        "sys.exit(1)",
    )
    with Supervised(tmp_path, _python(CONTROL, notes, 0), _python(once, notes, 0)) as weft:
        until(lambda: weft.notes.count("router start") == 2, "router started again")
        assert weft.process.poll() is None


def test_children_do_not_survive_a_killed_supervisor(tmp_path: Path) -> None:
    with _scripted(tmp_path) as weft:
        weft.until_told("READY=1")
        until(lambda: "router start" in weft.notes, "router started")
        children = [weft.child("control"), weft.child("router")]
        weft.signal(signal.SIGKILL)
        weft.wait()
        until(lambda: all(_gone(pid) for pid in children), "children gone")


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    stubborn = ROUTER.replace("signal.SIGTERM, term", "signal.SIGTERM, signal.SIG_IGN")
    with Supervised(tmp_path, _python(CONTROL, notes, 0), _python(stubborn, notes, 0)) as weft:
        until(lambda: "router start" in weft.notes, "router started")
        weft.signal(signal.SIGTERM)
        assert weft.wait() == 0
        assert "child had to be killed" in weft.stderr
        assert weft.notes[-1] == "control stop"


def test_watchdog_keep_alives_while_both_live(tmp_path: Path) -> None:
    with _scripted(tmp_path, WATCHDOG_USEC="200000") as weft:
        weft.until_told("READY=1")
        weft.until_told("WATCHDOG=1", times=3)
        os.kill(weft.child("router"), signal.SIGSTOP)  # alive to the eye
        weft.until_told("WATCHDOG=1", times=6)
        os.kill(weft.child("router"), signal.SIGCONT)


def test_no_keep_alive_without_a_router(tmp_path: Path) -> None:
    control = _python(CONTROL, tmp_path / "notes", 0)
    with Supervised(tmp_path, control, ["/nonexistent"], WATCHDOG_USEC="100000") as weft:
        until(lambda: weft.stderr.count("child cannot be started") == 4, "several attempts")
        assert weft.told("WATCHDOG=1") == 0


def test_nobody_else_can_speak_for_control(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    liar = "from base.sdnotify import Notifier\nNotifier().send(X_WEFT_ROUTER='ready')\n" + ROUTER
    control = CONTROL.replace('; Notifier().send(X_WEFT_ROUTER="ready")', "")
    with Supervised(tmp_path, _python(control, notes, 0), _python(liar, notes, 0)) as weft:
        until(lambda: "router start" in weft.notes, "router started")
        time.sleep(0.3)
        assert weft.told("READY=1") == 0


def test_the_real_control_with_a_router(tmp_path: Path) -> None:
    peers, link, api = tmp_path / "peers.toml", tmp_path / "router.sock", tmp_path / "weave.sock"
    peers.write_text(PEERS)
    control = [sys.executable, "-m", "control.cli", "control", "--static", str(peers)]
    control += ["--nickname", "host1", "--control-socket", str(link), "--http-addr", str(api)]
    router = [sys.executable, "-m", "tests.control.fake_router", "--control-socket", str(link)]

    def ready() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(api))
                client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
                return b" 200 " in client.recv(100)
            except OSError:
                return False

    with Supervised(tmp_path, control, router) as weft:
        weft.until_told("READY=1")
        assert ready()
        killed_at = time.monotonic()
        os.kill(weft.child("router"), signal.SIGKILL)
        until(lambda: weft.stderr.count("child started child=router") == 2, "router back")
        until(ready, "ready again")
        assert time.monotonic() - killed_at < 2
        os.kill(weft.child("control"), signal.SIGKILL)
        until(lambda: weft.stderr.count("child started child=control") == 2, "control back")
        until(ready, "ready again with the same router")
        assert weft.stderr.count("child started child=router") == 2
        weft.signal(signal.SIGINT)
        assert weft.wait() == 0
    assert not link.exists()
    assert not api.exists()
