"""``weft launch`` with all its parts in a host of its own: what it makes, mends, and takes away."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.control.netns_host import sh
from tests.control.processes import Running, until, weft
from tests.native.namespace import in_new_netns


class _Node(Running):
    """``weft launch`` alone in its mesh, state in ``folder``."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.api = folder / "weave.sock"
        self.state = ["--db-prefix", f"{folder}/weft-"]
        self.state += ["--control-socket", str(folder / "router.sock")]
        self.address = ["--http-addr", str(self.api)]
        argv = ["-P", "-m", "control.cli", "launch", "--nickname", "host1"]
        argv += ["--ipalloc-init", "consensus=1", *self.state, *self.address, *more]
        super().__init__(folder, argv)

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            try:
                client.connect(str(self.api))
                client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
                return client.recv(4096).startswith(b"HTTP/1.1 200 ")
            except OSError:
                return False

    def does(self, *words: str) -> str:
        """Output of a command that succeeds."""
        done = weft(*words, *self.address)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def control_pid(self) -> int:
        return int(json.loads(self.does("report", "--json"))["Pids"]["Control"])


def _tables() -> str:
    return sh("nft list tables")


@in_new_netns
@pytest.mark.timeout(180)
@pytest.mark.patient
def test_launch_expose_crash_reset(tmp_path: Path) -> None:
    with _Node(tmp_path, "--no-masq-local") as node:
        until(node.ready, f"ready: {node.stderr}", 60)
        assert node.does("prime") == ""
        assert node.does("expose") == "10.32.0.1\n"
        assert "10.32.0.1/12" in sh("ip -4 -br addr show weave")
        assert "(1 active)" in node.does("status", "ipam")
        until(lambda: "10.32.0.0/12 }" in sh("nft list set ip weave weaver-no-masq-local"), "set")
        sh("nft delete table ip weave")
        until(lambda: "exposed 10.32.0.0/12" in sh("nft list ruleset"), "the rules again", 20)

        control = node.control_pid()
        os.kill(control, signal.SIGKILL)
        until(lambda: node.ready() and node.control_pid() != control, "another control", 60)
        assert node.does("expose") == "10.32.0.1\n"
        assert "(1 active)" in node.does("status", "ipam")

        done = weft("reset", *node.state, *node.address)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr in ("", f"weft: waiting for process {node.pid} to end\n")
        assert node.wait() == 0
    assert _tables() == ""
    assert "weave" not in sh("ip -br link")
    assert list(tmp_path.glob("weft-*")) == []


@in_new_netns
@pytest.mark.timeout(120)
@pytest.mark.patient
def test_a_host_whose_packet_filter_is_left_alone(tmp_path: Path) -> None:
    with _Node(tmp_path, "--no-packet-filter") as node:
        until(node.ready, f"ready: {node.stderr}", 60)
        assert _tables() == ""
        assert node.does("expose") == "10.32.0.1\n"
        assert "10.32.0.1/12" in sh("ip -4 -br addr show weave")
        assert _tables() == ""
