"""Which file is found, what becomes ours of it, and what becomes of it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from base.errors import ConfigError
from base.names import PeerName
from control.adopt.take_over import LeftBehind, find, open_state
from control.host.files import HostFiles
from control.ipam_store import IpamStore
from control.state import StateStore, state_path
from ipam.store import Change, Identity
from tests.control.adopt.bolt_file import CONTAINER, VALUES, bolt_file
from tests.control.adopt.test_weave_state import decoded
from tests.control.processes import weft

NAME = PeerName.parse("ce:01:00:00:00:01")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a host, empty."""
    return tmp_path / "host"


@pytest.fixture
def files(root: Path) -> HostFiles:
    root.mkdir()
    return HostFiles(str(root))


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"{tmp_path}/state/weft-"


def leave(path: Path, values: dict[bytes, bytes] = VALUES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bolt_file(values))
    return path


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def assert_taken_over(store: StateStore) -> None:
    stored = IpamStore(store).load()
    state = decoded()
    assert state.ring is not None
    assert stored.identity == Identity(NAME, state.ring.universe)
    assert stored.entries == state.ring.entries
    assert stored.seeds == (NAME,)
    assert tuple(stored.holdings) == state.holdings
    assert store.name() == NAME
    assert store.peers() == ["192.0.2.1"]
    assert IpamStore(store).holder(state.holdings[1].addr) == CONTAINER


@pytest.mark.parametrize(
    "place",
    [
        "weavedb/weavedata.db",
        "var/lib/weave/weave-netdata.db",
        "var/lib/docker/volumes/0f3a/_data/weavedata.db",
    ],
)
def test_found_where_weave_net_keeps_it(
    place: str, root: Path, files: HostFiles, prefix: str
) -> None:
    assert find(files, prefix, None) is None
    path = leave(root / place)
    left = find(files, prefix, None)
    assert left is not None
    assert (left.path, left.name) == (path, NAME)
    with open_state(prefix, left) as store:
        assert_taken_over(store)
    assert names(path.parent) == [path.name + ".adopted"]
    assert find(files, prefix, None) is None, "once"


def test_in_the_place_of_our_own_file(files: HostFiles, prefix: str) -> None:
    path = leave(state_path(prefix))
    with pytest.raises(ConfigError, match="is of Weave Net; launch with --adopt"):
        StateStore.open(prefix)
    with open_state(prefix, find(files, prefix, None)) as store:
        assert_taken_over(store)
    assert path.name + ".adopted" in names(path.parent)
    with StateStore.open(prefix) as store:
        assert store.name() == NAME


def test_a_take_over_that_was_interrupted_begins_again(files: HostFiles, prefix: str) -> None:
    path = leave(state_path(prefix))
    left = find(files, prefix, None)
    assert left is not None
    left.set_aside()
    StateStore.open(prefix).close()  # ours was made, and there it ended
    with open_state(prefix, find(files, prefix, None)) as store:
        assert_taken_over(store)
    assert path.name + ".adopted" in names(path.parent)


def test_a_node_with_a_state_of_its_own_keeps_it(
    root: Path, files: HostFiles, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = leave(root / "weavedb/weavedata.db")
    ours = PeerName.parse("ce:09:00:00:00:09")
    state = decoded()
    assert state.ring is not None
    with StateStore.open(prefix) as store:
        IpamStore(store).commit(Change(identity=Identity(ours, state.ring.universe)))
        store.set_name(ours)
    with open_state(prefix, find(files, prefix, None)) as store:
        assert store.name() == ours
        assert IpamStore(store).load().entries == ()
    assert path.exists()
    assert "left alone" in caplog.text


def test_the_users_peers_stay(root: Path, files: HostFiles, prefix: str) -> None:
    leave(root / "weavedb/weavedata.db")
    with StateStore.open(prefix) as store:
        store.set_peers(["host1"])
    with open_state(prefix, find(files, prefix, None)) as store:
        assert store.peers() == ["host1"]
        assert store.name() == NAME


def test_a_router_without_a_ring_leaves_its_name(root: Path, files: HostFiles, prefix: str) -> None:
    leave(root / "weavedb/weavedata.db", {k: VALUES[k] for k in (b"version", b"peername")})
    with open_state(prefix, find(files, prefix, None)) as store:
        assert store.name() == NAME
        assert IpamStore(store).identity() is None


def test_one_file_at_two_places_is_one(root: Path, files: HostFiles, prefix: str) -> None:
    path = leave(root / "var/lib/weave/weave-netdata.db")
    (root / "weavedb").mkdir()
    (root / "weavedb/weave-netdata.db").hardlink_to(path)
    assert find(files, prefix, None) is not None


def test_several_are_for_the_user_to_choose_from(root: Path, files: HostFiles, prefix: str) -> None:
    first = leave(root / "weavedb/weavedata.db")
    second = leave(root / "var/lib/docker/volumes/1/_data/weavedata.db")
    with pytest.raises(ConfigError, match=f"{first}, {second}; name one"):
        find(files, prefix, None)
    left = find(files, prefix, "/weavedb/weavedata.db")
    assert left is not None
    assert left.path == first


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0" * 9])
def test_what_was_named_has_to_be_one(
    content: bytes | None, root: Path, files: HostFiles, prefix: str
) -> None:
    if content is not None:
        (root / "some.db").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--adopt-db: /some.db is no state file of Weave Net"):
        find(files, prefix, "/some.db")


def test_a_router_that_runs_is_not_robbed(root: Path, files: HostFiles, prefix: str) -> None:
    path = leave(root / "weavedb/weavedata.db")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"Weave Net is running, it has .* open; stop it"):
            find(files, prefix, None)
        left = find(files, prefix, None, stopped=False)  # to look is free
        assert left is not None
    assert names(path.parent) == ["weavedata.db"]


@pytest.mark.parametrize("damage", ["cut", "ring", "range"])
def test_a_damaged_file_is_refused_and_left(
    damage: str, root: Path, files: HostFiles, prefix: str
) -> None:
    path = leave(root / "weavedb/weavedata.db")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        ring = bytearray(VALUES[b"ring"])
        start, end = bytes.fromhex("fc0a280000"), bytes.fromhex("fc0a290000")
        at = ring.index(start if damage == "range" else end)
        ring[at + 4] += 1  # no CIDR any more; or tokens outside
        leave(path, VALUES | {b"ring": bytes(ring)})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"weavedata.db is damaged .*; move it away to go on"):
        find(files, prefix, None)
    assert path.read_bytes() == before


def test_what_cannot_be_renamed_is_not_taken_over(
    root: Path, files: HostFiles, prefix: str
) -> None:
    path = leave(root / "weavedb/weavedata.db")
    left = find(files, prefix, None)
    path.unlink()
    with pytest.raises(ConfigError, match=r"cannot rename .*; Weave Net must not start with it"):
        open_state(prefix, left)
    with StateStore.open(prefix) as store:
        assert store.name() is None


def test_on_the_command_line(root: Path, tmp_path: Path) -> None:
    path = leave(root / "weavedb/weavedata.db")
    where = ("--host-root", str(root), "--db-prefix", f"{tmp_path}/x-", "--weave-bridge", "none")
    done = weft("launch", "--print-peer-name", "--adopt", *where)
    assert (done.stdout, done.stderr) == (f"{NAME}\n", "")
    assert path.exists(), "printing takes nothing over"
    path.rename(tmp_path / "x-data.db.adopting")
    (tmp_path / "x-data.db").unlink()
    done = weft("launch", "--print-peer-name", "--adopt", *where)
    assert done.stdout == f"{NAME}\n"
    done = weft("control", "--adopt-db", "/x", "--http-addr", "", *where)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "weft: --adopt-db: it is taken over with --adopt; give both\n"


def test_to_look_changes_nothing(root: Path, files: HostFiles, prefix: str) -> None:
    path = leave(root / "weavedb/weavedata.db")
    before = path.read_bytes()
    assert LeftBehind.read(path, stopped=True).state == decoded()
    assert find(files, prefix, None) is not None
    assert path.read_bytes() == before
    assert names(path.parent) == ["weavedata.db"]
