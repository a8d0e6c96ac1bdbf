"""Which name a node takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from base.errors import ConfigError
from base.names import PeerName
from control.identity import bridge_mac, choose_name, parse_name

GIVEN = PeerName.parse("ce:01:00:00:00:01")
BRIDGE = PeerName.parse("ce:02:00:00:00:02")
KEPT = PeerName.parse("ce:03:00:00:00:03")
ODD = PeerName.parse("cf:02:00:00:00:02")


@pytest.mark.parametrize(
    ("given", "bridge", "kept", "chosen"),
    [
        (GIVEN, BRIDGE, KEPT, GIVEN),
        (None, BRIDGE, KEPT, BRIDGE),
        (None, BRIDGE, None, BRIDGE),
        (None, None, KEPT, KEPT),
        (None, BRIDGE, ODD, ODD),  # a bridge cannot bear the multicast bit
        (None, PeerName(bytes(6)), KEPT, KEPT),
    ],
)
def test_the_order(
    given: PeerName | None, bridge: PeerName | None, kept: PeerName | None, chosen: PeerName
) -> None:
    assert choose_name(given, bridge, kept, random.Random(1)) == chosen


def test_a_random_name_is_local_and_unicast_and_another_each_time() -> None:
    rng = random.Random(1)
    names = {choose_name(None, None, None, rng) for _ in range(100)}
    assert len(names) == 100
    assert all(name.octets[0] & 3 == 2 for name in names)


def test_only_a_bridge_counts(tmp_path: Path) -> None:
    for name in ("weave", "eth0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text("ce:02:00:00:00:02\n")
    (tmp_path / "weave" / "bridge").mkdir()
    assert bridge_mac("weave", tmp_path) == BRIDGE
    assert bridge_mac("eth0", tmp_path) is None
    assert bridge_mac("absent", tmp_path) is None


@pytest.mark.parametrize("text", ["", "host1", "ce:01", "00:00:00:00:00:00", "::"])
def test_bad_names(text: str) -> None:
    with pytest.raises(ConfigError, match="--name: "):
        parse_name(text)
