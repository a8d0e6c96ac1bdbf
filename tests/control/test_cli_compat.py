"""What old scripts say to the command, and what it answers."""

from __future__ import annotations

import os

import pytest

from control.cli import main
from control.cli.compat import NOT_ROOT, REMOVED
from tests.control.netns_host import sh
from tests.control.processes import weft
from tests.native.namespace import in_new_netns


def test_help_is_a_command() -> None:
    done = weft("help")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == weft().stderr
    of_one = weft("help", "attach")
    assert (of_one.returncode, of_one.stdout) == (0, "")
    assert "weft attach --pid 4711 job-17" in of_one.stderr
    unknown = weft("help", "nothing")
    assert unknown.returncode == 1
    assert unknown.stderr == "weft: help: no command 'nothing'; see 'weft help'\n"


@pytest.mark.parametrize("command", sorted(REMOVED))
def test_removed_commands_end_with_a_hint(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([command], [command, "-it", "--name=x", "image", "--", "sh"], [command, "-h"]):
        assert main.main(words) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == f"weft: {command}: {REMOVED[command]}\n"


def test_removed_commands_are_not_advertised() -> None:
    commands = [line.split()[1] for line in weft("--help").stdout.splitlines() if "│ " in line]
    assert "help" in commands
    assert not set(commands) & set(REMOVED)


def test_names_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["dns-args"]) == 0
    assert capsys.readouterr().out == "\n"


def test_local_is_for_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main.main(["--local", "dns-args"]) == 0
    assert capsys.readouterr() == ("\n", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main.main(["--local", "dns-args"]) == 1
    assert capsys.readouterr() == ("", f"{NOT_ROOT}\n")


@in_new_netns
def test_the_address_of_dockers_bridge() -> None:
    assert main.main(["docker-bridge-ip"]) == 1
    sh("ip link add docker0 type bridge")
    assert main.main(["docker-bridge-ip"]) == 1
    sh("ip addr add 172.17.0.1/16 dev docker0")
    assert main.main(["docker-bridge-ip"]) == 0
