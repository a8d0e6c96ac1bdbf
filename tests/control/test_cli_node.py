"""Commands that talk to a node, as processes, against a real API on real sockets."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control import state
from control.api import status
from control.cli import node_options, options
from control.host import files
from control.run_lock import LOCK_NAME
from mesh import core
from tests.control.processes import ROOT, weft
from tests.control.served import Served
from tests.control.views import forwarder, live, member, node, target


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    api = Served(tmp_path)
    with api.running():
        yield api


def _at(served: Served) -> tuple[str, str]:
    return ("--http-addr", str(served.unix))


def test_status(served: Served) -> None:
    done = weft("status", *_at(served))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"\n{status.summary(served.view)}\n"
    for part in ("connections", "peers", "targets"):
        done = weft("status", part, *_at(served))
        assert done.stdout == getattr(status, part)(served.view)
        assert isinstance(json.loads(weft("status", part, "--json", *_at(served)).stdout), list)


def test_status_before_it_is_ready(served: Served) -> None:
    served.view = node(up=False)
    for more in ((), ("--json",), ("connections",)):
        done = weft("status", *more, *_at(served))
        assert done.returncode == 1
        assert done.stdout
        assert done.stderr == ""


def test_the_first_address_that_answers(served: Served, tmp_path: Path) -> None:
    done = weft("status", "targets", "--http-addr", f"{tmp_path}/none.sock,{served.tcp}")
    assert done.stdout == "10.95.0.2\n"
    done = weft("status", "targets", "--http-addr", f"127.0.0.1:1,{served.unix}")
    assert done.stdout == "10.95.0.2\n"


def test_address_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEAVE_HTTP_ADDR", served.tcp)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert weft("status", "targets").stdout == "10.95.0.2\n"


@pytest.mark.parametrize(
    ("addresses", "code", "words"),
    [
        ("{0}/none.sock,127.0.0.1:1", 1, "no node is launched here (nothing at {0}/none.sock and"),
        (
            "{0}/dead.sock,127.0.0.1:1",
            2,
            "the node at {0}/dead.sock and 127.0.0.1:1 is not running",
        ),
        (
            "{0}/run/none.sock,127.0.0.1:1",
            2,
            "the node at {0}/run/none.sock and 127.0.0.1:1 is not running",
        ),
        ("", 1, "no address"),
        ("example.org:80", 1, '"example.org:80" is no address'),
    ],
)
@pytest.mark.parametrize("command", [("status",), ("report",), ("connect", "a"), ("forget", "a")])
def test_nobody_answers(
    tmp_path: Path, addresses: str, code: int, words: str, command: tuple[str, ...]
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_NAME).touch()  # of a launch that was stopped
    done = weft(*command, "--http-addr", addresses.format(tmp_path))
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(f"weft: --http-addr: {words.format(tmp_path)}")
    assert done.stderr.count("\n") == 1


def test_connect_and_forget(served: Served) -> None:
    assert weft("connect", "a:1", "b", *_at(served)).returncode == 0
    assert weft("connect", "--replace", "c", *_at(served)).returncode == 0
    assert weft("connect", "--replace", *_at(served)).returncode == 0
    done = weft("forget", "a:1", "&replace=true", *_at(served))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert served.orders.connected == [(["a:1", "b"], False), (["c"], True), ([], True)]
    assert served.orders.forgotten == [["a:1", "&replace=true"]]


def test_connect_is_refused(served: Served) -> None:
    done = weft("connect", "bad1", "b", "bad2", *_at(served))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ('weft: peer "bad1": no address\\x1b; peer "bad2": no address\\x1b\n')


@pytest.mark.parametrize("command", ["connect", "forget"])
def test_without_peers(served: Served, command: str) -> None:
    done = weft(command, *_at(served))
    assert done.returncode == 1
    assert done.stderr.startswith(f"weft: {command}: no peer; name ")
    assert served.orders.connected == []


def test_a_node_that_does_not_know_the_request(served: Served) -> None:
    """As an older one, or another program's; 404 is exit code 4, but 1 of status."""
    from control.cli.client import AnswerError, post

    with pytest.raises(AnswerError, match="the node does not know /nothing") as caught:
        post(str(served.unix), "/nothing", [])
    assert caught.value.exit_code == 4


def test_report(served: Served) -> None:
    raw = weft("report", "--json", *_at(served))
    assert json.loads(raw.stdout)["Router"]["Name"] == "ce:01:00:00:00:01"
    assert weft("report", *_at(served)).stdout == raw.stdout, "scripts get JSON, as ever"


@pytest.mark.parametrize(
    ("template", "code", "text", "complaint"),
    [
        ("{{.Router.Name}}", 0, "ce:01:00:00:00:01\n", ""),
        ("{{range .Router.Peers}}{{.NickName}}\n{{end}}", 0, "host1\nhost2\n", ""),
        ("{{", 1, "", "weft: --format: template: format:1: unclosed action\n"),
        ("{{.Nope}}", 1, "", "weft: --format: error during template execution; field names are"),
    ],
)
def test_formats(served: Served, template: str, code: int, text: str, complaint: str) -> None:
    done = weft("report", "-f", template, *_at(served))
    assert (done.returncode, done.stdout) == (code, text)
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == (1 if complaint else 0)


def test_report_on_a_terminal(served: Served) -> None:
    """Tables, in which nothing that a peer chose is markup or an escape sequence."""
    served.view = node(
        member(
            connections=(
                live(nick="[bold]x[/bold]\x1b[2J", sealed=True),
                target("failed", "no route to host", 5.0),
            ),
            warnings=("there is no password",),
        ),
        forwarders=(forwarder(cipher="aes-256-gcm", rtt_us=400, degraded="fragments are lost"),),
    )
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "control.cli", "report", *_at(served)],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1"},
        stdout=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # EIO: the other end is closed
    finally:
        os.close(ours)
    assert done.wait(10) == 0
    text = shown.decode()
    for words in (
        "Warning: there is no password",
        "aes-256-gcm",
        "0.4 ms",
        "fragments are lost",
        "no route to host, retry: ",
        "[bold]x[/bold]\\x1b[2J",
        "captured_frames",
    ):
        assert words in text
    assert "\x1b[2J" not in text
    assert "sent_frames" not in text, "counters at zero are left out"


@pytest.mark.parametrize("command", ["status", "report", "connect", "forget", "stop"])
def test_help_has_examples(command: str) -> None:
    done = weft(command, "--help")
    assert done.returncode == 0
    assert f"weft {command}" in done.stdout.split("Examples:")[1]


def test_defaults_are_those_of_the_rooms_that_use_them() -> None:
    assert options.DEFAULT_PREFIX == state.DEFAULT_PREFIX
    assert node_options.CONN_LIMIT == core.CONN_LIMIT
    assert node_options.DEFAULT_PORT == core.DEFAULT_PORT
    assert node_options.PROC == files.PROC
