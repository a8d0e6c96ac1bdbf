"""What a node remembers between its runs, in one sqlite file.

The file is ``<db-prefix>data.db``, for root alone. A change is on the disk (write-ahead log, full
sync) before the method that makes it returns, so callers may promise it. The file is locked for as
long as it is open: two control processes never share one. A file that is damaged or of another
program is refused and left as it is; nothing here ever resets it.

    setting   key TEXT, value TEXT      "name", "running"
    peer      position, text            the user's peers, in the order given

Source of truth: node specification 7 (remembered peers, restart marker).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from base.errors import ConfigError
from base.names import PeerName

DEFAULT_PREFIX: Final = "/var/lib/weave/weft-"
#: "WEFT", in the file's header.
APPLICATION_ID: Final = 0x57454654
SCHEMA_VERSION: Final = 1

_SCHEMA: Final = (
    "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE peer (position INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
)


class StateStore:
    """An open state file. Methods may be called from any thread, from one at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, prefix: str) -> Self:
        """Open the file, making it and its folder if they are missing.

        Raises:
            ConfigError: it cannot be had, is in use, damaged, or not ours.
        """
        path = Path(f"{prefix}data.db")
        if not path.is_absolute():
            raise ConfigError(f'--db-prefix: "{prefix}" is no absolute path')
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                path, timeout=0, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as err:
            reason = err.strerror if isinstance(err, OSError) else str(err)
            raise ConfigError(f"--db-prefix: cannot open {path}: {reason}") from err
        store = cls(connection, path)
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
        text = self._setting("name")
        try:
            return None if text is None else PeerName.parse(text)
        except ValueError as err:
            raise ConfigError(f"--db-prefix: {self.path} is damaged: {err}") from err

    def set_name(self, name: PeerName) -> None:
        """Remember the peer name."""
        self._set("name", str(name))

    # --- the user's peers ------------------------------------------------------------------------

    def peers(self) -> list[str]:
        """The user's peers as given, in order."""
        rows = self._connection.execute("SELECT text FROM peer ORDER BY position")
        return [text for (text,) in rows]

    def set_peers(self, texts: Iterable[str]) -> None:
        """Replace them all.

        Raises:
            ConfigError: the disk does not take it; nothing was changed.
        """
        with self._change():
            self._connection.execute("DELETE FROM peer")
            self._connection.executemany(
                "INSERT INTO peer (position, text) VALUES (?, ?)", enumerate(dict.fromkeys(texts))
            )

    # --- restart marker --------------------------------------------------------------------------

    def crashed(self) -> bool:
        """Whether the run before this one never ended in order."""
        return self._setting("running") is not None

    def begin_run(self) -> None:
        """Mark a run as begun."""
        self._set("running", "1")

    def end_run(self) -> None:
        """The run ends in order."""
        with self._change():
            self._connection.execute("DELETE FROM setting WHERE key = 'running'")

    # --- inside ----------------------------------------------------------------------------------

    def _setting(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _set(self, key: str, value: str) -> None:
        with self._change():
            self._connection.execute(
                "INSERT INTO setting (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction, on the disk at its end.

        Raises:
            ConfigError: it could not be made durable, and was undone.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as err:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise ConfigError(f"--db-prefix: cannot write {self.path}: {err}") from err

    def _prepare(self) -> None:
        execute = self._connection.execute
        try:
            # exclusive first: it spares the shared-memory file and keeps a second process out
            execute("PRAGMA locking_mode = EXCLUSIVE")
            (pages,) = execute("PRAGMA page_count").fetchone()
            execute("PRAGMA synchronous = FULL")
            if pages:
                self._check()
            else:
                self._create()
            execute("PRAGMA journal_mode = WAL")
            execute("BEGIN IMMEDIATE")  # whoever else has it is found out now
            execute("COMMIT")
        except sqlite3.OperationalError as err:
            if "locked" in str(err):
                raise ConfigError(
                    f"--db-prefix: {self.path} is in use; is another node running with it?"
                ) from err
            raise ConfigError(f"--db-prefix: cannot use {self.path}: {err}") from err
        except sqlite3.DatabaseError as err:
            raise ConfigError(
                f"--db-prefix: {self.path} is no state file or is damaged ({err}); move it away to "
                "start afresh"
            ) from err

    def _create(self) -> None:
        # in one transaction, before the log exists: half a file has no pages at all
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            execute(statement)
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        execute("COMMIT")

    def _check(self) -> None:
        (found,) = self._connection.execute("PRAGMA application_id").fetchone()
        if found != APPLICATION_ID:
            raise ConfigError(
                f"--db-prefix: {self.path} belongs to another program; choose another prefix"
            )
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"--db-prefix: {self.path} has format {version}, this release knows "
                f"{SCHEMA_VERSION}; use the release that wrote it"
            )
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ConfigError(
                f"--db-prefix: {self.path} is damaged ({verdict}); move it away to start afresh"
            )
