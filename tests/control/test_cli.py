"""The ``weft`` command as a process: exit codes, one-line errors, what it becomes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from control.cli.commands import router_argv
from control.cli.node_options import RouterOptions
from control.run_lock import RunLock
from control.version import weft_version
from tests.control.processes import PEERS, ROOT, weft


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch", "--port", "x"], "--port: "),
        (["launch", "--port", "99999"], "--port: "),
        (["launch", "--bogus"], "No such option: --bogus"),
        (["control", "--log-level", "loud"], "--log-level: 'loud' is not one of debug, info"),
        (["control", "--log-format", "xml"], "--log-format: 'xml' is not one of kv, json"),
        (
            ["control", "--static", "/nonexistent/peers.toml"],
            "--static: /nonexistent/peers.toml: no",
        ),
        (["launch", "--min-protocol-version", "3"], "--min-protocol-version: "),
        (["control", "--min-protocol-version", "0"], "--min-protocol-version: "),
        (["launch", "--print-peer-name", "--adopt", "--host-root", "/none"], "--host-root: "),
        (["launch", "--weave-bridge", "x" * 16], "--weave-bridge: interface name: "),
        (["attach-bridge", "--weave-bridge", "a/b"], "--weave-bridge: interface name: "),
        (["rmpeer", "host1", "a/b"], "rmpeer: 'a/b' names no peer; "),
        (["rmpeer", ""], "rmpeer: '' names no peer; "),
        (["rmpeer", ".."], "rmpeer: '..' names no peer; "),
        (
            ["control", "--static"],
            "Option '--static' requires an argument; see 'weft control --help'",
        ),
        (["status", "nonsense"], "status: no part 'nonsense'; use targets"),
        (["status", "--http-addr", "/nonexistent/sock"], "--http-addr: no node is launched here"),
        (["report", "--http-addr", "not an address"], "--http-addr: "),
        (["fly"], "No such command 'fly'"),
        (["detach", "--name", "\udcff", "c1"], "\\udcff: this argument is no text in UTF-8"),
        (["connect", "a\udc80"], "a\\udc80: this argument is no text in UTF-8"),
        (["rmpeer", "x" * 70000, "--http-addr", "127.0.0.1:1"], f"/peer/{'x' * 58}: this cannot"),
    ],
)
def test_user_errors_are_one_line_and_exit_one(arguments: list[str], message: str) -> None:
    done = weft(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"weft: {message}")
    assert done.stderr.count("\n") == 1, done.stderr


def test_every_program_of_the_original_says_its_version() -> None:
    for words in (["version"], ["--version"], ["launch", "--version"], ["control", "--version"]):
        done = weft(*words)
        assert (done.returncode, done.stdout) == (0, f"weft {weft_version()}\n")


def test_nobody_listens_on_tcp() -> None:
    done = weft("status", "--http-addr", "127.0.0.1:1")
    assert done.returncode == 2
    assert "is not running; run 'weft launch'" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(unbuffered: str) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    argv = [sys.executable, "-m", "control.cli", "version"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            argv, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    complaint = "weft: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, complaint)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            argv, env=environ, stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_node_that_runs_and_does_not_answer(tmp_path: Path) -> None:
    with RunLock(tmp_path / "router.sock"):
        done = weft("status", "--http-addr", str(tmp_path / "weave.sock"))
    assert done.returncode == 2
    assert f"the node (process {os.getpid()}) does not answer at {tmp_path}" in done.stderr


@pytest.mark.parametrize("command", ["launch", "control", "router", "status", "report"])
def test_help_has_examples(command: str) -> None:
    done = weft(command, "--help")
    assert done.returncode == 0
    assert f"weft {command}" in done.stdout.split("Examples:")[1]


def test_bare_command_is_usage_on_stderr() -> None:
    done = weft()
    assert done.returncode == 1
    assert done.stdout == ""
    assert "launch" in done.stderr
    assert weft("--help").returncode == 0


def test_version() -> None:
    for arguments in (["version"], ["--version"]):
        done = weft(*arguments)
        assert done.returncode == 0
        assert done.stdout.startswith("weft ")


def test_a_bad_peers_file_ends_launch_before_the_router(tmp_path: Path) -> None:
    peers = tmp_path / "peers.toml"
    peers.write_text(PEERS.replace("10.0.0.2", "fe80::2"))
    done = weft(
        *("launch", "--static", str(peers), "--nickname", "host1"),
        *("--control-socket", str(tmp_path / "r"), "--http-addr", str(tmp_path / "w")),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"weft: --static: {peers}:9: address ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_router_command_line() -> None:
    options = RouterOptions(control_socket=Path("/r"), log_level="info", mtu="-5")
    argv = router_argv(options)
    assert "--adopt" not in argv
    assert "--adopt" in router_argv(replace(options, adopt=True))
    assert argv[:4] == [sys.executable, "-P", "-m", "router"]
    assert sorted(argv[4:]) == [
        *("--control-socket=/r", "--host=", "--log-format=kv", "--log-level=info", "--mtu=-5"),
        *("--port=6783", "--weave-bridge=weave"),
    ]


def test_a_folder_lying_around_does_not_become_our_code(tmp_path: Path) -> None:
    for package in ("control", "router", "base"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('hijacked')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "control.cli", "version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


_INTERRUPTED_IMPORT = """
import signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "control.cli.main":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
from control.cli.entry import main
sys.exit(main())
"""
_INTERRUPTED_SET_UP = """
import signal, sys
import typer

typer.main.get_command = lambda _: signal.raise_signal(signal.SIGINT)
from control.cli.entry import main
sys.exit(main())
"""


@pytest.mark.parametrize("program", [_INTERRUPTED_IMPORT, _INTERRUPTED_SET_UP])
def test_an_interrupt_before_it_begins_leaves_no_trace(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, "version"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("command", ["router", "demo"])
def test_commands_that_become_another_process(command: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    code = (
        "import sys\nfrom control.cli.main import main\n"
        f"sys.executable = {str(stand_in)!r}\n"
        f"sys.exit(main([{command!r}, '--mtu', '1410']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    expected = "-P -m router --weave-bridge" if command == "router" else "-P -m lab.demo --mtu"
    assert done.stdout.startswith(expected), done.stderr
    assert "1410" in done.stdout
