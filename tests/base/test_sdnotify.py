"""sd_notify over real sockets: what arrives, and who is said to have sent it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from base.sdnotify import Notifier, NotifyReceiver, watchdog_interval_s


def test_nothing_is_sent_without_a_manager() -> None:
    assert not Notifier({}).ready("up")
    assert not Notifier({"NOTIFY_SOCKET": "relative"}).enabled


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("up")


def test_to_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": path}).ready("three peers")
        assert manager.recv(1000) == b"READY=1\nSTATUS=three peers"
        assert Notifier({"NOTIFY_SOCKET": path}).reloading()
        reloading, monotonic = manager.recv(1000).split(b"\n")
        assert reloading == b"RELOADING=1"
        assert int(monotonic.removeprefix(b"MONOTONIC_USEC=")) > 0


def test_receiver_knows_the_sender() -> None:
    with NotifyReceiver() as receiver:
        assert receiver.receive() is None
        environ = {**os.environ, "NOTIFY_SOCKET": receiver.address}
        child = subprocess.Popen(
            [sys.executable, "-c", "from base.sdnotify import Notifier; Notifier().ready('a=b')"],
            env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert child.wait(20) == 0
        assert receiver.receive() == (child.pid, {"READY": "1", "STATUS": "a=b"})
        assert Notifier(environ).keep_alive()
        assert receiver.receive() == (os.getpid(), {"WATCHDOG": "1"})


def test_receiver_keeps_no_passed_descriptor() -> None:
    with NotifyReceiver() as receiver, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + receiver.address[1:])
        before = len(list(Path("/proc/self/fd").iterdir()))
        socket.send_fds(sender, [b"READY=1"], [0, 1])
        assert receiver.receive() == (os.getpid(), {"READY": "1"})
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval_s(environ) == expected
