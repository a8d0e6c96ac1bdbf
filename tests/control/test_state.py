"""The state file: what it keeps, who may open it, and what it refuses."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from base.errors import ConfigError
from base.names import PeerName
from control.state import APPLICATION_ID, SCHEMA_VERSION, StateStore, StateWriteError

NAME = PeerName.parse("ce:01:00:00:00:01")


def _prefix(folder: Path) -> str:
    return f"{folder}/sub/weft-"


def test_a_new_file_is_for_its_owner_alone_and_remembers(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        assert (store.name(), store.peers(), store.crashed()) == (None, [], False)
        store.set_name(NAME)
        store.set_peers(["b", "a:7", "b"])
        assert store.path.stat().st_mode & 0o777 == 0o600
        assert store.path.parent.stat().st_mode & 0o777 == 0o700
    with StateStore.open(_prefix(tmp_path)) as store:
        assert (store.name(), store.peers()) == (NAME, ["b", "a:7"])
        store.set_peers([])
    with StateStore.open(_prefix(tmp_path)) as store:
        assert store.peers() == []


def test_a_run_that_does_not_end_in_order_is_known_afterwards(tmp_path: Path) -> None:
    for ends, crashed in ((True, False), (False, False), (True, True), (True, False)):
        with StateStore.open(_prefix(tmp_path)) as store:
            assert store.crashed() is crashed
            store.begin_run()
            if ends:
                store.end_run()


def test_two_processes_never_share_a_file(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        with pytest.raises(ConfigError, match=r"--db-prefix: .*data\.db is in use"):
            StateStore.open(_prefix(tmp_path))
        store.set_name(NAME)


_WRITER = """
import sys
from control.state import APPLICATION_ID, SCHEMA_VERSION, StateStore
store = StateStore.open(sys.argv[1])
number = 0
while True:
    number += 1
    store.set_peers([f"host{number}"])
    print(number, flush=True)
"""


def test_what_was_promised_survives_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, _prefix(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 50:
                break
        writer.send_signal(signal.SIGKILL)
        promised = [line, *writer.stdout][-1]
    with StateStore.open(_prefix(tmp_path)) as store:
        (kept,) = store.peers()
        # one more may have been written than could be told
        assert int(promised) <= int(kept.removeprefix("host")) <= int(promised) + 1


def _file(folder: Path) -> Path:
    path = Path(f"{_prefix(folder)}data.db")
    path.parent.mkdir()
    return path


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="belongs to another program"):
        StateStore.open(_prefix(tmp_path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "garbage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4080]
)
def test_garbage_is_refused_and_left_alone(tmp_path: Path, garbage: bytes) -> None:
    path = _file(tmp_path)
    path.write_bytes(garbage)
    with pytest.raises(ConfigError, match="--db-prefix: "):
        StateStore.open(_prefix(tmp_path))
    assert path.read_bytes() == garbage


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        store.set_peers([f"host{number}.example.org" for number in range(2000)])
        path = store.path
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 4] = b"\x5a" * 4096
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        StateStore.open(_prefix(tmp_path))
    assert path.read_bytes() == data


def test_others_shall_not_write(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        path = store.path
    path.chmod(0o666)
    with StateStore.open(_prefix(tmp_path)) as store:
        store.set_peers(["host1"])
        for each in path.parent.iterdir():  # the log has the mode of the file
            assert each.stat().st_mode & 0o777 == 0o644


def test_an_emptied_file_is_no_new_one(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        store.set_peers(["host1"])
        path, log = store.path, Path(f"{store.path}-wal")
        held = log.read_bytes()
    path.write_bytes(b"")
    log.write_bytes(held)  # as after a crash
    with pytest.raises(ConfigError, match=r"is damaged .*move it and .*-wal away"):
        StateStore.open(_prefix(tmp_path))
    assert (path.read_bytes(), log.read_bytes()) == (b"", held)
    log.unlink()
    with StateStore.open(_prefix(tmp_path)) as store:  # one that was made and never filled
        assert store.peers() == []


def test_damage_in_the_names_of_columns_is_found(tmp_path: Path) -> None:
    """The database's own message about it is no text then."""
    with StateStore.open(_prefix(tmp_path)) as store:
        path = store.path
    data = path.read_bytes()
    path.write_bytes(data.replace(b"CREATE TABLE setting (", b"CREATE TABLE setting \xff"))
    with pytest.raises(ConfigError, match="damaged"):
        StateStore.open(_prefix(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        path = store.path
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="has format 99"):
        StateStore.open(_prefix(tmp_path))


def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with sqlite3.connect(path) as old:
        old.executescript(
            "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
            "CREATE TABLE peer (position INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;"
            f"INSERT INTO setting VALUES ('name', '{NAME}');"
            "INSERT INTO peer VALUES (0, 'host2');"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
            "PRAGMA journal_mode = WAL;"
        )
    old.close()
    for _ in range(2):
        with StateStore.open(_prefix(tmp_path)) as store:
            assert (store.name(), store.peers()) == (NAME, ["host2"])
            assert store.rows("SELECT * FROM ipam_ring") == []
            assert store.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]


def _add(store: StateStore, *positions: int) -> None:
    with store.change() as connection:
        for position in positions:
            connection.execute("INSERT INTO peer VALUES (?, 'a')", (position,))


def _add_and_fail(store: StateStore) -> None:
    with store.change() as connection:
        connection.execute("INSERT INTO peer VALUES (0, 'a')")
        raise ZeroDivisionError


def test_a_change_is_made_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with StateStore.open(_prefix(tmp_path)) as store:
        with pytest.raises(ConfigError, match="cannot write"):
            _add(store, 0, 0)
        with pytest.raises(ZeroDivisionError):
            _add_and_fail(store)
        assert store.peers() == []
        store.set_peers(["c"])
        assert store.peers() == ["c"]


def test_nothing_is_promised_by_a_file_that_is_gone(tmp_path: Path) -> None:
    path = Path(f"{_prefix(tmp_path)}data.db")
    aside = tmp_path / "aside"
    with StateStore.open(_prefix(tmp_path)) as store:
        store.set_peers(["a"])
        path.rename(aside)
        with pytest.raises(StateWriteError, match="was removed or replaced while it was in use"):
            store.set_peers(["b"])
        path.touch()
        with pytest.raises(StateWriteError, match="restart the node"):
            store.set_peers(["b"])
        aside.replace(path)
        assert store.peers() == ["a"]
        store.set_peers(["c"])
        assert store.peers() == ["c"]


def test_a_prefix_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot open"):
        StateStore.open(f"{tmp_path}/file/weft-")
    with pytest.raises(ConfigError, match="no absolute path"):
        StateStore.open("weft-")
