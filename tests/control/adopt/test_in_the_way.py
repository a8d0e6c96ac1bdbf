"""Devices of another router, as /sys shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import ConfigError
from control.adopt.in_the_way import check_place


def test_nothing_and_our_own_port_are_not_in_the_way(tmp_path: Path) -> None:
    check_place(None, tmp_path)
    (tmp_path / "vethwe-bridge").mkdir()
    (tmp_path / "vethwe-bridge" / "tun_flags").touch()
    check_place(None, tmp_path)
    check_place("tap", tmp_path)


def test_a_pair_is_unless_we_use_it_ourselves(tmp_path: Path) -> None:
    (tmp_path / "vethwe-bridge").mkdir()
    check_place("packet", tmp_path)
    for capture in (None, "tap"):
        with pytest.raises(ConfigError, match=r"^--adopt: vethwe-bridge is here and is no TAP"):
            check_place(capture, tmp_path)


@pytest.mark.parametrize("capture", [None, "packet"])
def test_a_fast_datapath_always_is(capture: str | None, tmp_path: Path) -> None:
    (tmp_path / "datapath").mkdir()
    with pytest.raises(ConfigError, match=r"^--adopt: datapath is here"):
        check_place(capture, tmp_path)
