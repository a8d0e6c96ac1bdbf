"""Unix listeners: stale, live, foreign and forbidden paths."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from base.errors import ConfigError
from control.sockets import listen_unix


def test_mode_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "sock"
    listener = listen_unix(path, 0o600, "--x", "it")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.socket.close()
    listener.remove()
    assert not path.exists()
    listener.remove()


def test_a_stale_file_is_replaced_and_a_live_one_respected(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    dead = listen_unix(path, 0o600, "--x", "it")
    dead.socket.close()
    live = listen_unix(path, 0o600, "--x", "it")
    with pytest.raises(ConfigError, match=r"^--x: control is already running on .*; stop it first"):
        listen_unix(path, 0o600, "--x", "control")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    dead.remove()
    assert path.exists(), "it removed another's file"
    live.socket.close()
    live.remove()
    assert not path.exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket; remove it"):
        listen_unix(path, 0o600, "--x", "it")
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen_unix(path / "below", 0o600, "--x", "it")


def test_too_long_a_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes; shorten it"):
        listen_unix(tmp_path / ("x" * 120), 0o600, "--x", "it")


def test_a_failure_leaks_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(ConfigError):
            listen_unix(path, 0o600, "--x", "it")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
