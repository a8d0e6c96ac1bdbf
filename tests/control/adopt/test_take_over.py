"""What becomes ours of a file that was left, and what becomes of the file, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import ConfigError
from base.names import PeerName
from control.adopt import take_over
from control.adopt.take_over import Adoption, open_state
from control.host.files import HostFiles
from control.ipam_store import IpamStore
from control.state import StateStore, remove_state, state_path
from ipam.address import Cidr, Range
from ipam.store import Change, Identity
from tests.control.adopt.shapes import leave, names
from tests.control.adopt.test_weave_state import decoded
from tests.control.bolt_file import CONTAINER, VALUES
from tests.control.processes import weft

NAME = PeerName.parse("ce:01:00:00:00:01")
OTHER = PeerName.parse("ce:09:00:00:00:09")
RANGE = Cidr.parse("10.40.0.0/16").range


def wanted(
    files: HostFiles,
    given: str | None = None,
    *,
    name: PeerName | None = None,
    universe: Range | None = RANGE,
) -> Adoption:
    """``name``: of a node that has one anyhow, by ``--name`` or its bridge."""
    return Adoption(files, given, lambda left: name or left or OTHER, universe)


def assert_ours(store: StateStore) -> None:
    stored = IpamStore(store).load()
    state = decoded()
    assert state.ring is not None
    assert stored.identity == Identity(NAME, RANGE)
    assert stored.entries == state.ring.entries
    assert stored.seeds == (NAME,)
    assert tuple(stored.holdings) == state.holdings
    assert store.name() == NAME
    assert store.peers() == ["192.0.2.1"]
    assert IpamStore(store).holder(Cidr.parse("10.40.0.2/16").addr) == CONTAINER


@pytest.fixture
def elsewhere(root: Path) -> Path:
    return leave(root / "weavedb/weavedata.db")


@pytest.fixture(params=["elsewhere", "in our place"])
def left(request: pytest.FixtureRequest, root: Path, prefix: str) -> Path:
    """At a place of Weave Net's, or where our own file would be."""
    path = root / "weavedb/weavedata.db" if request.param == "elsewhere" else state_path(prefix)
    return leave(path)


def test_all_of_it_is_ours_and_the_file_renamed(left: Path, files: HostFiles, prefix: str) -> None:
    before = left.read_bytes()
    open_state(prefix, wanted(files)).close()
    aside = left.with_name(left.name + ".adopted")
    assert aside.read_bytes() == before
    for adoption in (None, wanted(files), wanted(files, "/weavedb/weavedata.db")):
        with open_state(prefix, adoption) as store:  # --adopt may stay on the command line
            assert_ours(store)
    assert left.name not in names(left.parent) or left == state_path(prefix)


def test_a_file_in_our_place_is_not_ours_unasked(files: HostFiles, prefix: str) -> None:
    path = leave(state_path(prefix))
    with pytest.raises(ConfigError, match="is of Weave Net; launch with --adopt"):
        open_state(prefix, None)
    assert names(path.parent) == [path.name]
    open_state(prefix, wanted(files)).close()


class PowerCutError(BaseException):
    """Nothing handles it."""


def _cut(*_: object, **__: object) -> None:
    raise PowerCutError


#: What is called next when it happens.
STEPS = {
    "before our file is there": (StateStore, "open"),
    "before the transaction": (take_over, "_import"),
    "within the transaction": (take_over, "put_peers"),
    "before the file is renamed": (take_over, "rename"),
    "before that is noted": (StateStore, "forget_setting"),
}


def _only_once(patch: pytest.MonkeyPatch) -> None:
    first = [take_over.rename]

    def rename(path: Path, to: Path) -> None:
        (first.pop() if first else _cut)(path, to)

    patch.setattr(take_over, "rename", rename)


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("undone", [True, False], ids=["an error", "power is cut"])
def test_whoever_dies_in_between_goes_on_from_there(
    at: str,
    undone: bool,
    left: Path,
    files: HostFiles,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[at], _cut)
        if not undone and at != "before the file is renamed" and left == state_path(prefix):
            _only_once(patch)  # undoing it does not happen either
        try:
            open_state(prefix, wanted(files)).close()
        except PowerCutError:
            pass
        else:
            assert left == state_path(prefix), "there nothing is noted"
    with open_state(prefix, wanted(files)) as store:
        assert_ours(store)
    assert left.with_name(left.name + ".adopted").exists()
    assert left == state_path(prefix) or not left.exists()


@pytest.mark.parametrize("at", ["before our file is there", "within the transaction"])
def test_what_fails_in_our_place_is_undone(
    at: str, files: HostFiles, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave(state_path(prefix))
    before = path.read_bytes()
    monkeypatch.setattr(*STEPS[at], _cut)
    with pytest.raises(PowerCutError):
        open_state(prefix, wanted(files))
    assert names(path.parent) == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("adoption", "complaint"),
    [
        ({"name": OTHER}, rf"--name: .* peer {NAME}, this node would be {OTHER}; give --name"),
        (
            {"universe": Cidr.parse("10.32.0.0/12").range},
            r"--ipalloc-range: .* of Weave Net divides 10.40.0.0/16; give that, or",
        ),
    ],
)
def test_what_would_not_be_used_is_not_taken(
    adoption: dict[str, object], complaint: str, left: Path, files: HostFiles, prefix: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_state(prefix, wanted(files, **adoption))  # type: ignore[arg-type]
    assert left.name in names(left.parent)
    with open_state(prefix, wanted(files)) as store:
        assert_ours(store)


def test_without_allocation_the_range_is_kept_for_later(
    elsewhere: Path, files: HostFiles, prefix: str
) -> None:
    with open_state(prefix, wanted(files, universe=None)) as store:
        assert_ours(store)
    assert not elsewhere.exists()


def test_a_node_with_an_allocation_of_its_own_keeps_it(
    elsewhere: Path, files: HostFiles, prefix: str
) -> None:
    with StateStore.open(prefix) as store:
        IpamStore(store).commit(Change(identity=Identity(OTHER, RANGE)))
    elsewhere.write_bytes(elsewhere.read_bytes()[:5000])  # nor is it looked at
    with open_state(prefix, wanted(files, "/weavedb/weavedata.db")) as store:
        assert IpamStore(store).load().entries == ()
    assert elsewhere.exists()


def test_doing_without(left: Path, files: HostFiles, prefix: str) -> None:
    if left == state_path(prefix):
        with pytest.raises(ConfigError, match="or choose another prefix"):
            open_state(prefix, wanted(files, ""))
    else:
        with open_state(prefix, wanted(files, "")) as store:
            assert store.name() is None
    assert left.exists()


def test_a_name_alone_is_no_allocation(elsewhere: Path, files: HostFiles, prefix: str) -> None:
    with StateStore.open(prefix) as store:
        store.set_name(OTHER)
        store.set_peers(["host1"])
    with open_state(prefix, wanted(files)) as store:
        assert store.name() == NAME
        assert store.peers() == ["host1"], "the user's"
    assert not elsewhere.exists()


def test_a_router_without_a_ring_leaves_its_name(root: Path, files: HostFiles, prefix: str) -> None:
    path = leave(root / "weavedb/weavedata.db", {k: VALUES[k] for k in (b"version", b"peername")})
    with open_state(prefix, wanted(files)) as store:
        assert store.name() == NAME
        assert IpamStore(store).identity() is None
        store.set_name(OTHER)
    assert not path.exists()
    leave(path)
    with open_state(prefix, wanted(files)) as store:
        assert store.name() == OTHER, "once"


def test_after_reset_nothing_comes_back(left: Path, files: HostFiles, prefix: str) -> None:
    open_state(prefix, wanted(files)).close()
    remove_state(prefix)
    take_over.aside_of(state_path(prefix)).unlink(missing_ok=True)  # as weft reset does
    with open_state(prefix, wanted(files)) as store:
        assert store.name() is None
    assert left.with_name(left.name + ".adopted").exists() or left == state_path(prefix)


def test_what_cannot_be_renamed_is_not_taken(
    elsewhere: Path, files: HostFiles, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write wherever it is possible
    with pytest.raises(ConfigError, match=r"cannot rename .*, and Weave Net must not start with"):
        open_state(prefix, wanted(files))
    with StateStore.open(prefix) as store:
        assert store.name() is None
    assert elsewhere.exists()


def test_on_the_command_line(elsewhere: Path, root: Path, tmp_path: Path) -> None:
    where = ("--host-root", str(root), "--db-prefix", f"{tmp_path}/x-", "--weave-bridge", "none")
    for _ in range(2):
        done = weft("launch", "--print-peer-name", "--adopt", *where)
        assert (done.stdout, done.stderr) == (f"{NAME}\n", "")
    assert elsewhere.exists(), "printing takes nothing over"
    elsewhere.replace(tmp_path / "x-data.db")
    done = weft("launch", "--print-peer-name", "--adopt", *where)
    assert done.stdout == f"{NAME}\n"
    done = weft("control", "--adopt-db", "/x", "--http-addr", "", *where)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "weft: --adopt-db: it is taken over with --adopt; give both\n"
