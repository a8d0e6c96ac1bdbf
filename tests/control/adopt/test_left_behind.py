"""Which file is found, and which is refused."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from base.errors import ConfigError
from control.adopt.left_behind import LeftBehind, find, is_left
from control.host.files import HostFiles
from tests.control.adopt.shapes import leave, names
from tests.control.adopt.test_weave_state import decoded
from tests.control.bolt_file import VALUES

VOLUME = "var/lib/docker/volumes"


@pytest.mark.parametrize("place", ["weavedb/weavedata.db", "var/lib/weave/weave-netdata.db"])
def test_found_where_weave_net_keeps_it(place: str, root: Path, files: HostFiles) -> None:
    assert find(files, None) is None
    path = leave(root / place)
    assert find(files, None) == path
    assert find(files, "") is None, "not wanted"
    with LeftBehind.open(path) as left:
        assert left.state == decoded()
    assert names(path.parent) == [path.name]


def test_one_file_at_two_places_is_one(root: Path, files: HostFiles) -> None:
    path = leave(root / "var/lib/weave/weave-netdata.db")
    (root / "weavedb").mkdir()
    (root / "weavedb/weave-netdata.db").hardlink_to(path)
    assert find(files, None) == root / "weavedb/weave-netdata.db"


def test_several_are_for_the_user_to_choose_from(root: Path, files: HostFiles) -> None:
    first = leave(root / "weavedb/weavedata.db")
    second = leave(root / "var/lib/weave/weavedata.db")
    with pytest.raises(ConfigError, match=f"{first}, {second}; name the right one, or '' for"):
        find(files, None)
    assert find(files, "/weavedb/weavedata.db") == first


def test_what_a_container_could_have_written_is_for_the_user_to_name(
    root: Path, files: HostFiles
) -> None:
    leave(root / VOLUME / "named" / "_data" / "weavedata.db")
    assert find(files, None) is None
    path = leave(root / VOLUME / ("0f" * 32) / "_data" / "weavedata.db")
    with pytest.raises(ConfigError, match=f"this may be the state of Weave Net: {path}; name"):
        find(files, None)
    assert find(files, f"/{path.relative_to(root)}") == path


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0" * 9])
def test_what_was_named_has_to_be_one(content: bytes | None, root: Path, files: HostFiles) -> None:
    if content is not None:
        (root / "some.db").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--adopt-db: /some.db is no state file of Weave Net"):
        find(files, "/some.db")


def test_pipes_and_links_are_not_opened(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to(leave(tmp_path / "real.db"))
    for name in ("pipe", "link"):
        assert not is_left(root / name)
        with pytest.raises(ConfigError, match=f"cannot read {root / name}"):
            LeftBehind.open(root / name)


def test_a_router_that_runs_is_not_robbed(root: Path) -> None:
    path = leave(root / "weavedb/weavedata.db")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"Weave Net is running, it has .* open; stop it"):
            LeftBehind.open(path)
        LeftBehind.open(path, stopped=False).close()  # to look is free
    with LeftBehind.open(path), path.open("rb") as router, pytest.raises(BlockingIOError):
        fcntl.flock(router, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("damage", ["cut", "tokens outside", "no CIDR"])
def test_a_damaged_file_is_refused_and_left(damage: str, root: Path) -> None:
    path = leave(root / "weavedb/weavedata.db")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        ring = bytearray(VALUES[b"ring"])
        start, end = bytes.fromhex("fc0a280000"), bytes.fromhex("fc0a290000")
        ring[ring.index(end if damage == "no CIDR" else start) + 4] += 1
        leave(path, VALUES | {b"ring": bytes(ring)})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"weavedata.db is damaged .*; move it away, or do with"):
        LeftBehind.open(path)
    assert path.read_bytes() == before
