"""Options of the original: which are dropped with a word, which end the command with a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from control.cli.legacy import IGNORED, REJECTED, strip_legacy
from tests.control.processes import weft


@pytest.mark.parametrize(
    ("given", "kept", "warned"),
    [
        (["--no-fastdp", "host1"], ["host1"], 1),
        (["--datapath", "dp", "host1"], ["host1"], 1),
        (["--datapath=dp", "host1"], ["host1"], 1),
        (["--docker-api", "--resume"], ["--resume"], 1),
        (["--profile"], [], 1),
        (["--name", "a", "--", "--no-fastdp"], ["--name", "a", "--", "--no-fastdp"], 0),
        (["--no-dns", "--dns-domain=x.", "--no-restart"], [], 3),
    ],
)
def test_ignored_options_take_their_value_along(
    given: list[str], kept: list[str], warned: int
) -> None:
    left, warnings = strip_legacy(given)
    assert left == kept
    assert len(warnings) == warned
    assert all("has no effect: " in warning for warning in warnings)


@pytest.mark.parametrize("option", sorted(REJECTED))
def test_rejected_options_come_with_a_hint(option: str) -> None:
    for arguments in ([option], ["host1", f"{option}=x"], [option, "x"]):
        with pytest.raises(ConfigError, match=f"^{option}: .*;"):
            strip_legacy(arguments)


def test_rejected_options_may_be_off() -> None:
    """``--plugin=false --proxy=false`` is how the original is launched without its Docker parts."""
    for option in REJECTED:
        given = [f"{option}=false", "host1", f"{option}=", f"{option}=0"]
        assert strip_legacy(given) == (["host1"], [])
        with pytest.raises(ConfigError):
            strip_legacy([f"{option}=true"])


def test_switches_may_say_what_they_are() -> None:
    given = ["--no-discovery=false", "--resume=true", "--name=false", "host1", "--", "--resume=0"]
    kept = ["--resume", "--name=false", "host1", "--", "--resume=0"]
    assert strip_legacy(given, {"--no-discovery", "--resume"}) == (kept, [])
    done = weft("launch", "--no-discovery=no", "--version=true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("weft: --no-discovery: 'no' is neither true nor false; leave it out\n")
    assert weft("launch", "--no-discovery=false", "--version=true").returncode == 0


def test_a_value_may_look_like_an_option() -> None:
    given = ["--name", "--resume=false", "--name", "-H=0", "--name", "--no-dns", "--name=-H", "a"]
    assert strip_legacy([*given, "--name"], {"--resume"}, {"--name"}) == ([*given, "--name"], [])
    done = weft("launch", "--log-level", "--no-dns=1", "--version")
    assert done.returncode == 1
    assert "'--no-dns=1'" in done.stderr


@given(st.lists(st.sampled_from([*IGNORED, "--", "a", "--name", "--x=y", "-"])))
def test_nothing_else_is_lost(arguments: list[str]) -> None:
    kept, _ = strip_legacy(arguments)
    rest = iter(arguments)
    assert all(any(one == other for other in rest) for one in kept)
    assert [one for one in arguments if one in ("--name", "--x=y")] == [
        one for one in kept if one in ("--name", "--x=y")
    ]


def test_on_the_command_line(tmp_path: object) -> None:
    done = weft("launch", "--no-fastdp", "--plugin")
    assert done.returncode == 1
    assert done.stderr == (
        "weft: --plugin: there is no Docker network plugin; attach containers with weft attach\n"
    )
    done = weft("launch", "--print-peer-name", "--no-fastdp", "--db-prefix", f"{tmp_path}/weft-")
    assert done.returncode == 0
    assert done.stderr.startswith("weft: --no-fastdp has no effect: there is no Open vSwitch here")
    assert done.stderr.count("\n") == 1
    again = weft("control", "--print-peer-name", "--db-prefix", f"{tmp_path}/weft-")
    assert again.stdout == done.stdout
    assert len(done.stdout) == 18
