"""Which name a node takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from base.errors import ConfigError
from base.names import PeerName
from control.host.files import HostFiles
from control.identity import (
    MACHINE_IDS,
    UUIDS,
    bridge_mac,
    choose_name,
    parse_name,
    random_name,
    settle_name,
    weave_name,
)
from control.state import StateStore
from tests.control.processes import weft
from tests.golden import load

GIVEN = PeerName.parse("ce:01:00:00:00:01")
BRIDGE = PeerName.parse("ce:02:00:00:00:02")
KEPT = PeerName.parse("ce:03:00:00:00:03")
ODD = PeerName.parse("cf:02:00:00:00:02")


def _nothing_fresh() -> PeerName:
    raise AssertionError("there is a name")


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
    assert choose_name(given, bridge, kept, _nothing_fresh) == chosen


def test_a_random_name_is_local_and_unicast_and_another_each_time() -> None:
    rng = random.Random(1)
    names = {choose_name(None, None, None, lambda: random_name(rng)) for _ in range(100)}
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


# --- the name that Weave gave ---------------------------------------------------------------------

DERIVED = load("peer_names")["default_peer_name_from_system_id"]
#: The third vector's.
MACHINE_ID = "0123456789abcdef0123456789abcdef\n"
MACHINE_NAME = "0a:39:ab:6e:42:c6"


def _host(root: Path, *files: tuple[str, bytes]) -> HostFiles:
    (root / "proc" / "self").parent.mkdir(parents=True)
    for path, content in files:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).write_bytes(content)
    return HostFiles(str(root))


@pytest.mark.parametrize("machine_id", MACHINE_IDS)
@pytest.mark.parametrize("uuid", UUIDS)
@pytest.mark.parametrize("vector", DERIVED, ids=lambda vector: vector["mac"])
def test_names_that_weave_makes(
    tmp_path: Path, vector: dict[str, str], uuid: str, machine_id: str
) -> None:
    lines = bytes.fromhex(vector["uuid_bytes_hex"]).splitlines(keepends=True)
    if not lines:
        return  # the original refuses to start with that
    files = list(zip((machine_id, uuid), lines, strict=False))
    assert str(weave_name(_host(tmp_path / "both", *files))) == vector["mac"]
    if len(lines) == 1:
        assert str(weave_name(_host(tmp_path / "uuid", (uuid, lines[0])))) == vector["mac"]


def test_the_first_of_each_counts(tmp_path: Path) -> None:
    files = [(MACHINE_IDS[0], MACHINE_ID.encode()), (MACHINE_IDS[1], b"other\n")]
    assert str(weave_name(_host(tmp_path, *files))) == MACHINE_NAME


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ((), "--adopt: this host has no /etc/machine-id"),
        (((UUIDS[0], b""),), "--adopt: this host has no /etc/machine-id"),
        (((MACHINE_IDS[0], b"\n"), (UUIDS[0], b"1-2\n")), "--adopt: /etc/machine-id .* is empty"),
        (((MACHINE_IDS[0], b"uninitialized\n"),), "--adopt: /etc/machine-id .* is empty"),
        (((MACHINE_IDS[0] + "/x", b""),), "--adopt: /etc/machine-id cannot be read .Is a direct"),
    ],
)
def test_nothing_to_make_a_name_of(
    tmp_path: Path, files: tuple[tuple[str, bytes], ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        weave_name(_host(tmp_path, *files))


def test_it_is_made_once(tmp_path: Path) -> None:
    files = _host(tmp_path / "host", (MACHINE_IDS[0], MACHINE_ID.encode()))
    with StateStore.open(f"{tmp_path}/adopted-") as store:
        assert str(settle_name(store, None, "none", lambda: weave_name(files))) == MACHINE_NAME
        assert str(settle_name(store, None, "none")) == MACHINE_NAME, "remembered"
    with StateStore.open(f"{tmp_path}/new-") as store:
        first = settle_name(store, None, "none")
        assert str(first) != MACHINE_NAME
        again = settle_name(store, None, "none", lambda: weave_name(files))
        assert again == first, "it has a name already"


def test_on_the_command_line(tmp_path: Path) -> None:
    _host(tmp_path / "host", (MACHINE_IDS[0], MACHINE_ID.encode()))
    where = ("--host-root", f"{tmp_path}/host/", "--db-prefix", f"{tmp_path}/x-")
    command = ("launch", "--print-peer-name", "--weave-bridge", "none", *where)
    done = weft(*command, "--adopt")
    assert (done.stdout, done.stderr) == (f"{MACHINE_NAME}\n", "")
    (tmp_path / "host" / "etc" / "machine-id").write_text("")
    (tmp_path / "x-data.db").unlink()
    done = weft(*command, "--adopt")
    assert done.returncode == 1
    assert done.stderr == "weft: --adopt: /etc/machine-id of this host is empty; give --name\n"
