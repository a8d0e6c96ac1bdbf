"""IPAM's part of the state file: the ring as this node knows it, and what it has handed out.

One :class:`ipam.store.Change` is one transaction, on the disk when ``commit`` returns.
Whose state it is stands beside it, so that a node with another name or range does not take it for
its own; what to do then is the allocator's to decide.

Numbers are stored as they are: addresses and versions of 32 bits, peer names of 48.

Source of truth: ipam specification 9.1, 9.2; tables: :mod:`control.state`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

import msgspec

from base.errors import ConfigError
from base.names import PeerName
from control.state import SET_SETTING, StateStore
from ipam.address import Cidr
from ipam.store import Change, Entry, Holding, Identity, Stored

_NAME: Final = "ipam_name"
_RANGE: Final = "ipam_range"

# All rows of a change go in as one JSON parameter. executemany would take the interpreter's lock
# once per row, and wait for the event loop, busy with the next requests, each time.
_DROP_ENTRIES: Final = "DELETE FROM ipam_ring WHERE token IN (SELECT value FROM json_each(?))"
_PUT_ENTRIES: Final = (
    "INSERT OR REPLACE INTO ipam_ring (token, peer, version, free) "
    "SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)"
)
_DROP_HOLDINGS: Final = "DELETE FROM ipam_owned WHERE address IN (SELECT value FROM json_each(?))"
_PUT_HOLDINGS: Final = (
    "INSERT INTO ipam_owned (address, prefix_len, ident, is_container, position) "
    "SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) "
    "WHERE true "  # without it the parser takes ON for a join's
    "ON CONFLICT (address) DO UPDATE SET prefix_len = excluded.prefix_len, "
    "ident = excluded.ident, is_container = excluded.is_container"
)


# A number that sqlite takes and nobody could have written; what the numbers mean together is the
# allocator's to check.
_NO_SUCH_NUMBERS: Final = (
    "SELECT 1 FROM ipam_seed WHERE peer NOT BETWEEN 0 AND 0xFFFFFFFFFFFF "
    "UNION ALL SELECT 1 FROM ipam_ring WHERE token NOT BETWEEN 0 AND 0xFFFFFFFF "
    "OR peer NOT BETWEEN 0 AND 0xFFFFFFFFFFFF OR version NOT BETWEEN 0 AND 0xFFFFFFFF "
    "OR free NOT BETWEEN 0 AND 0xFFFFFFFF "
    "UNION ALL SELECT 1 FROM ipam_owned WHERE address NOT BETWEEN 0 AND 0xFFFFFFFF "
    "OR prefix_len NOT BETWEEN 0 AND 32 OR is_container NOT IN (0, 1) LIMIT 1"
)


class IpamStore:
    """A :class:`ipam.store.Store` in the node's state file."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._position = int(
            state.rows("SELECT coalesce(max(position) + 1, 0) FROM ipam_owned")[0][0]
        )

    def load(self) -> Stored:
        """Everything, as the last commit left it; holdings are read as they are asked for.

        Raises:
            ConfigError: it cannot be read, or makes no sense.
        """
        state = self._state
        if state.rows(_NO_SUCH_NUMBERS):
            raise ConfigError(
                f"--db-prefix: {state.path} is damaged: addresses or peers that cannot be; move it "
                "away to start afresh"
            )
        return Stored(
            identity=self.identity(),
            seeds=tuple(
                PeerName.from_int(peer)
                for (peer,) in state.rows("SELECT peer FROM ipam_seed ORDER BY position")
            ),
            entries=tuple(
                Entry(*row)
                for row in state.rows(
                    "SELECT token, peer, version, free FROM ipam_ring ORDER BY token"
                )
            ),
            holdings=(
                Holding(addr, prefix_len, ident, bool(is_container))
                for addr, prefix_len, ident, is_container in state.stream(
                    "SELECT address, prefix_len, ident, is_container FROM ipam_owned "
                    "ORDER BY position"
                )
            ),
        )

    def holder(self, addr: int) -> str | None:
        """The ident that holds an address, as of the last commit.

        Raises:
            ConfigError: it cannot be read.
        """
        found = self._state.rows("SELECT ident FROM ipam_owned WHERE address = ?", (addr,))
        return str(found[0][0]) if found else None

    def identity(self) -> Identity | None:
        """Whose state it is; None if nothing was ever committed.

        Raises:
            ConfigError: it cannot be read, or makes no sense.
        """
        name, universe = self._state.setting(_NAME), self._state.setting(_RANGE)
        if name is None or universe is None:
            return None
        try:
            return Identity(PeerName.parse(name), Cidr.parse_subnet(universe).range)
        except (ValueError, ConfigError) as err:
            raise ConfigError(f"--db-prefix: {self._state.path} is damaged: {err}") from err

    def commit(
        self, change: Change, beside: Callable[[sqlite3.Connection], None] = lambda _: None
    ) -> None:
        """Make ``change`` durable, and what ``beside`` writes: all of it or nothing.

        Raises:
            ConfigError: the disk does not take it; nothing was changed.
        """
        position = self._position
        with self._state.change() as connection:
            if change.reset:
                for table in ("ipam_ring", "ipam_seed", "ipam_owned"):
                    connection.execute(f"DELETE FROM {table}")
                connection.execute("DELETE FROM setting WHERE key IN (?, ?)", (_NAME, _RANGE))
            if change.identity is not None:
                _set_identity(connection, change.identity)
            if change.seeds is not None:
                _set_seeds(connection, change.seeds)
            for statement, rows in (
                (_DROP_ENTRIES, change.tokens_gone),
                (_PUT_ENTRIES, change.entries),
                (_DROP_HOLDINGS, change.addrs_gone),
                (_PUT_HOLDINGS, [(*each, n) for n, each in enumerate(change.holdings, position)]),
            ):
                if rows:
                    connection.execute(statement, (msgspec.json.encode(rows).decode(),))
            beside(connection)
        self._position = position + len(change.holdings)


def _set_identity(connection: sqlite3.Connection, identity: Identity) -> None:
    for key, value in ((_NAME, str(identity.name)), (_RANGE, identity.universe.as_cidr_text())):
        connection.execute(SET_SETTING, (key, value))


def _set_seeds(connection: sqlite3.Connection, seeds: tuple[PeerName, ...]) -> None:
    connection.execute("DELETE FROM ipam_seed")
    connection.executemany(
        "INSERT INTO ipam_seed VALUES (?, ?)",
        [(position, int(seed)) for position, seed in enumerate(seeds)],
    )
