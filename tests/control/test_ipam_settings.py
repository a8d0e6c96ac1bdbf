"""Options of address allocation: what is understood, and what is refused with which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from base.names import PeerName
from control.cli import node_options
from control.ipam_settings import DEFAULT_RANGE, parse_ipam
from ipam.address import Cidr
from ipam.options import Mode
from tests.control.processes import ROOT

A, B = PeerName.parse("ce:01:00:00:00:01"), PeerName.parse("ce:02:00:00:00:02")


def test_no_range_no_allocation() -> None:
    assert parse_ipam("", "", "") is None
    for subnet, init, option in (("10.0.0.0/24", "", "default-subnet"), ("", "observer", "init")):
        with pytest.raises(ConfigError, match=f"--ipalloc-{option}: needs a range"):
            parse_ipam("", subnet, init)


def test_defaults() -> None:
    assert node_options.DEFAULT_RANGE == DEFAULT_RANGE
    found = parse_ipam(DEFAULT_RANGE, "", "")
    assert found is not None
    assert found.universe == found.default_subnet == Cidr.parse("10.32.0.0/12")
    assert (found.mode, found.expected, found.seeds) == (Mode.CONSENSUS, 0, ())
    told = found.options(A, "host1", 7)
    assert (told.name, told.nick, told.uid, told.universe) == (A, "host1", 7, found.universe)


@pytest.mark.parametrize(
    ("text", "mode", "expected", "seeds"),
    [
        ("consensus", Mode.CONSENSUS, 0, ()),
        ("consensus=3", Mode.CONSENSUS, 3, ()),
        ("consensus=0", Mode.CONSENSUS, 0, ()),
        ("consensus=-1", Mode.CONSENSUS, 0, ()),
        ("observer", Mode.OBSERVER, 0, ()),
        ("seed=", Mode.CONSENSUS, 0, ()),
        (f"seed={B},{A},{B}", Mode.SEED, 0, (B, A)),
        ("seed=ce:1::1", Mode.SEED, 0, (A,)),
    ],
)
def test_ways_to_begin(text: str, mode: Mode, expected: int, seeds: tuple[PeerName, ...]) -> None:
    found = parse_ipam("10.0.0.0/8", "", text)
    assert found is not None
    assert (found.mode, found.expected, found.seeds) == (mode, expected, seeds)


@pytest.mark.parametrize(
    ("universe", "subnet", "init", "words"),
    [
        ("10.0.0.1/8", "", "", "--ipalloc-range: invalid subnet - bits after network prefix"),
        ("10.0.0.0/31", "", "", "--ipalloc-range: invalid subnet - smaller than minimum size 4"),
        ("255.255.255.0/24", "", "", "--ipalloc-range: .*255.255.255.255"),
        ("fd00::/64", "", "", "--ipalloc-range: invalid Non-IPv4 address"),
        ("10.0.0.0/8", "10.0.0.9/24", "", "--ipalloc-default-subnet: invalid subnet"),
        ("10.0.0.0/8", "11.0.0.0/24", "", "--ipalloc-default-subnet: .* outside the range"),
        ("10.0.0.0/8", "", "quorum", '--ipalloc-init: "quorum" is no way to begin'),
        ("10.0.0.0/8", "", "observer=1", "--ipalloc-init: "),
        ("10.0.0.0/8", "", "consensus=three", '"three" is no number of peers'),
        ("10.0.0.0/8", "", "consensus=", "is no number of peers"),
        ("10.0.0.0/8", "", "consensus=99999999", "at most"),
        ("10.0.0.0/8", "", "seed=x", "--ipalloc-init: seed: invalid peer name"),
        ("10.0.0.0/8", "", "seed=00:00:00:00:00:00", "stands for nobody"),
    ],
)
def test_refusals(universe: str, subnet: str, init: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_ipam(universe, subnet, init)


def test_a_default_subnet_may_reach_beyond_the_range() -> None:
    found = parse_ipam("10.1.0.0/16", "10.0.0.0/8", "")
    assert found is not None
    assert found.default_subnet == Cidr.parse("10.0.0.0/8")


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=40))
def test_any_text(universe: str, subnet: str, init: str) -> None:
    for values in (
        (universe, subnet, init),
        ("10.0.0.0/8", subnet, init),
        ("10.0.0.0/8", "", init),
    ):
        try:
            parse_ipam(*values)
        except ConfigError as err:
            assert "\n" not in str(err)  # noqa: PT017


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace")
def test_a_default_range_that_overlaps_ends_the_start(tmp_path: Path) -> None:
    script = 'ip link set lo up && ip route add 10.40.0.0/16 dev lo && exec "$@"'
    for more, code in (
        ((), 1),
        (("--allow-overlap", "10.40.0.0/16"), 0),
        (("--ipalloc-range", "10.40.0.0/13"), 0),
    ):
        done = subprocess.run(
            [
                *("unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", _SETTLE),
                *more,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert ("overlaps with existing route 10.40.0.0/16 on host; give" in done.stderr) == (
            "--allow-overlap" not in more
        )


_SETTLE = """
import sys
from base import log
from base.errors import ConfigError
from control.cli.ranges import settle_range
log.setup()
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
allowed = [options["--allow-overlap"]] if "--allow-overlap" in options else []
try:
    settle_range(options.get("--ipalloc-range"), "weave", allowed)
except ConfigError as err:
    sys.exit(str(err))
"""
