"""What a node remembers between its runs, in one sqlite file.

The file is ``<db-prefix>data.db``, for root alone. A change is on the disk (write-ahead log, full
sync) before the method that makes it returns, so callers may promise it. The file is locked for as
long as it is open: two control processes never share one. A file that is damaged or of another
program is refused and left as it is; nothing here ever resets it.

    setting     key TEXT, value TEXT      "name", "running"; of IPAM: "ipam_name", "ipam_range";
                                          of Weave Net's state: "adopted", "adopting"
    peer        position, text            the user's peers, in the order given
    ipam_ring   token, peer, version, free    the ring as this node knows it
    ipam_seed   position, peer            whom the ring was divided among first
    ipam_owned  address, prefix_len, ident, is_container, position    what is handed out, in order
    attachment  container, ifname, ...    who is on which bridge with which addresses

The format is raised step by step: a file of an older release is brought up to date in one
transaction when it is opened, one of a newer release is refused. IPAM's tables are read and written
by :mod:`control.ipam_store`, the last by :mod:`control.attachment_store`.

Source of truth: node specification 7 (remembered peers, restart marker), ipam specification 9.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from base.errors import ConfigError
from base.names import PeerName
from control.bolt import BOLT_START_LEN, is_bolt
from control.state_file import file_at, log_of, make_private, was_emptied

DEFAULT_PREFIX: Final = "/var/lib/weave/weft-"
#: "WEFT", in the file's header.
APPLICATION_ID: Final = 0x57454654

#: What leads from each format to the next; never changed once released, only added to.
_STEPS: Final = (
    (
        "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "CREATE TABLE peer (position INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
    ),
    (
        (
            "CREATE TABLE ipam_ring (token INTEGER PRIMARY KEY, peer INTEGER NOT NULL, "
            "version INTEGER NOT NULL, free INTEGER NOT NULL) STRICT"
        ),
        "CREATE TABLE ipam_seed (position INTEGER PRIMARY KEY, peer INTEGER NOT NULL) STRICT",
        (
            "CREATE TABLE ipam_owned (address INTEGER PRIMARY KEY, prefix_len INTEGER NOT NULL, "
            "ident TEXT NOT NULL, is_container INTEGER NOT NULL, position INTEGER NOT NULL) STRICT"
        ),
    ),
    (
        (
            "CREATE TABLE attachment (container TEXT NOT NULL, ifname TEXT NOT NULL, "
            "ident TEXT NOT NULL, network TEXT NOT NULL, bridge TEXT NOT NULL, "
            "host_ifname TEXT NOT NULL, mac TEXT NOT NULL, mtu INTEGER NOT NULL, "
            "hairpin INTEGER NOT NULL, multicast_route INTEGER NOT NULL, "
            "addresses TEXT NOT NULL, routes TEXT NOT NULL, netns TEXT NOT NULL, "
            "netns_device INTEGER NOT NULL, netns_inode INTEGER NOT NULL, label TEXT NOT NULL, "
            "memo TEXT NOT NULL, made_at_s REAL NOT NULL, under_way TEXT, "
            "PRIMARY KEY (container, ifname)) STRICT, WITHOUT ROWID"
        ),
    ),
)
SCHEMA_VERSION: Final = len(_STEPS)
#: Parameters: key, value.
SET_SETTING: Final = (
    "INSERT INTO setting (key, value) VALUES (?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


class StateInUseError(ConfigError):
    """Another process has the file open."""


class StateWriteError(ConfigError):
    """A change was not made: the disk did not take it (full, read-only), or the file is gone."""


def state_path(prefix: str) -> Path:
    """The file's path, from ``--db-prefix``."""
    return Path(f"{prefix}data.db")


class StateStore:
    """An open state file. Methods may be called from any thread; one waits for another."""

    def __init__(self, connection: sqlite3.Connection, path: Path, file: tuple[int, int]) -> None:
        """``file``: device and inode of what was opened."""
        self._connection = connection
        self._lock = threading.Lock()
        self._file = file
        self.path = path

    @classmethod
    def open(cls, prefix: str) -> Self:
        """Open the file, making it and its folder if they are missing.

        Raises:
            ConfigError: it cannot be had, is in use, damaged, or not ours.
        """
        path = state_path(prefix)
        if not path.is_absolute():
            raise ConfigError(f'--db-prefix: "{prefix}" is no absolute path')
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if was_emptied(path):
                raise ConfigError(
                    f"--db-prefix: {path} is damaged (empty, and its log is not); move it and "
                    f"{log_of(path).name} away to start afresh"
                )
            make_private(path)
            file = file_at(path)
            connection = sqlite3.connect(
                path, timeout=0, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as err:
            reason = err.strerror if isinstance(err, OSError) else str(err)
            raise ConfigError(f"--db-prefix: cannot open {path}: {reason}") from err
        store = cls(connection, path, file)
        try:
            store._prepare()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- identity --------------------------------------------------------------------------------

    def name(self) -> PeerName | None:
        """The peer name this node had last.

        Raises:
            ConfigError: what is stored is no name.
        """
        text = self.setting("name")
        try:
            return None if text is None else PeerName.parse(text)
        except ValueError as err:
            raise ConfigError(f"--db-prefix: {self.path} is damaged: {err}") from err

    def set_name(self, name: PeerName) -> None:
        """Remember the peer name."""
        with self.change() as connection:
            put_name(connection, name)

    # --- the user's peers ------------------------------------------------------------------------

    def peers(self) -> list[str]:
        """The user's peers as given, in order."""
        return [str(text) for (text,) in self.rows("SELECT text FROM peer ORDER BY position")]

    def set_peers(self, texts: Iterable[str]) -> None:
        """Replace them all.

        Raises:
            ConfigError: the disk does not take it; nothing was changed.
        """
        with self.change() as connection:
            put_peers(connection, texts)

    # --- restart marker --------------------------------------------------------------------------

    def crashed(self) -> bool:
        """Whether the run before this one never ended in order."""
        return self.setting("running") is not None

    def begin_run(self) -> None:
        """Mark a run as begun."""
        self._set("running", "1")

    def end_run(self) -> None:
        """The run ends in order."""
        self.forget_setting("running")

    # --- for the owners of other tables ----------------------------------------------------------

    def setting(self, key: str) -> str | None:
        """A setting's value, None when it was never set."""
        found = self.rows("SELECT value FROM setting WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def forget_setting(self, key: str) -> None:
        """Remove a setting, which need not be there.

        Raises:
            StateWriteError: as :meth:`change`.
        """
        with self.change() as connection:
            connection.execute("DELETE FROM setting WHERE key = ?", (key,))

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Everything that a query finds.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as err:
            raise self._unreadable(err) from err

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the caller's statements, on the disk at its end, or undone.

        Raises:
            StateWriteError: it could not be made durable, and nothing was changed.
        """
        with self._lock:
            self._check_present()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as err:
                raise StateWriteError(f"--db-prefix: cannot write {self.path}: {err}") from err
            finally:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # it has told already what is wrong
                        self._connection.execute("ROLLBACK")

    def stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        """What a query finds, row by row; nothing may be changed before its end.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            yield from self._connection.execute(query)
        except sqlite3.Error as err:
            raise self._unreadable(err) from err

    # --- inside ----------------------------------------------------------------------------------

    def _check_present(self) -> None:
        """What goes into a file that nobody finds again is not durable."""
        try:
            found = file_at(self.path)
        except OSError:
            found = None
        if found != self._file:
            raise StateWriteError(
                f"--db-prefix: {self.path} was removed or replaced while it was in use; "
                "restart the node"
            )

    def _unreadable(self, err: sqlite3.Error) -> ConfigError:
        return ConfigError(f"--db-prefix: cannot read {self.path}: {err}")

    def _set(self, key: str, value: str) -> None:
        with self.change() as connection:
            connection.execute(SET_SETTING, (key, value))

    def _prepare(self) -> None:
        execute = self._connection.execute
        try:
            # exclusive first: it spares the shared-memory file and keeps a second process out
            execute("PRAGMA locking_mode = EXCLUSIVE")
            (pages,) = execute("PRAGMA page_count").fetchone()
            execute("PRAGMA synchronous = FULL")
            # in one transaction, before the log exists: half a file has no pages at all
            self._raise_format(self._check() if pages else 0)
            execute("PRAGMA journal_mode = WAL")
            execute("BEGIN IMMEDIATE")  # whoever else has it is found out now
            execute("COMMIT")
        except sqlite3.OperationalError as err:
            if "locked" in str(err):
                raise StateInUseError(
                    f"--db-prefix: {self.path} is in use; is another node running with it?"
                ) from err
            raise ConfigError(f"--db-prefix: cannot use {self.path}: {err}") from err
        except (sqlite3.DatabaseError, UnicodeDecodeError) as err:  # the latter: of its own text
            with self.path.open("rb") as file:
                weaves = is_bolt(file.read(BOLT_START_LEN))
            if weaves:
                raise ConfigError(
                    f"--db-prefix: {self.path} is of Weave Net; launch with --adopt to go on with "
                    "what it holds, or choose another prefix"
                ) from err
            raise ConfigError(
                f"--db-prefix: {self.path} is no state file or is damaged ({err}); move it away to "
                "start afresh"
            ) from err

    def _raise_format(self, version: int) -> None:
        if version == SCHEMA_VERSION:
            return
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for step in _STEPS[version:]:
            for statement in step:
                execute(statement)
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        execute("COMMIT")

    def _check(self) -> int:
        """The file's format."""
        (found,) = self._connection.execute("PRAGMA application_id").fetchone()
        if found != APPLICATION_ID:
            raise ConfigError(
                f"--db-prefix: {self.path} belongs to another program; choose another prefix"
            )
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if not 1 <= version <= SCHEMA_VERSION:
            raise ConfigError(
                f"--db-prefix: {self.path} has format {version}, this release knows "
                f"{SCHEMA_VERSION}; use the release that wrote it"
            )
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ConfigError(
                f"--db-prefix: {self.path} is damaged ({verdict}); move it away to start afresh"
            )
        return int(version)


def put_name(connection: sqlite3.Connection, name: PeerName) -> None:
    """Remember the peer name, within a :meth:`StateStore.change`."""
    connection.execute(SET_SETTING, ("name", str(name)))


def put_peers(connection: sqlite3.Connection, texts: Iterable[str]) -> None:
    """Replace the user's peers, within a :meth:`StateStore.change`."""
    connection.execute("DELETE FROM peer")
    connection.executemany(
        "INSERT INTO peer (position, text) VALUES (?, ?)", enumerate(dict.fromkeys(texts))
    )


def remove_state(prefix: str) -> None:
    """Remove the file, damaged or not, and what sqlite keeps beside it; a missing one is fine.

    Raises:
        ConfigError: it is in use, or cannot be removed.
    """
    path = state_path(prefix)
    if not path.exists():
        return
    try:
        StateStore.open(prefix).close()
    except StateInUseError:
        raise
    except ConfigError:
        pass  # then it is no loss
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        try:
            part.unlink(missing_ok=True)
        except OSError as err:
            raise ConfigError(f"--db-prefix: cannot remove {part}: {err.strerror}") from err
