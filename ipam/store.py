"""What must be durable, and how a store of it is used.

The shell handles any number of inputs, takes the change they made together, commits it as **one**
transaction, and only then lets answers and messages out:

    inputs ─▶ Allocator ─▶ take_change() ─▶ Store.commit ─▶ committed() ─▶ take_events()
                                                 └─ fails ─▶ rollback(reason) ─▶ take_events()

While a commit is under way further inputs may come in; they belong to the next change. A change
that was rolled back never happened, and the next one is relative to the state before it.

Source of truth: ipam specification 9.1, 9.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from base.names import PeerName
from ipam.address import Range


class Entry(NamedTuple):
    """A token of the ring: ``peer`` (its 48-bit number) owns from here to the next token.

    ``version`` is raised only by the owner, ``free`` its last word on free addresses in the piece.
    ``token`` is the key.
    """

    token: int
    peer: int
    version: int
    free: int


class Holding(NamedTuple):
    """An address in use on this host. ``addr`` is the key: an address has one holder.

    ``ident`` is any text of up to 65,535 bytes, usually a container's ID. ``is_container``: freed
    when that container dies.
    """

    addr: int
    prefix_len: int
    ident: str
    is_container: bool


@dataclass(slots=True, frozen=True)
class Identity:
    """Whose state it is: our name and the range of the ring."""

    name: PeerName
    universe: Range


@dataclass(slots=True, frozen=True)
class Stored:
    """All that a store holds; ``identity`` None when nothing was ever committed.

    ``holdings`` come in the order in which they were first committed, read once.
    """

    identity: Identity | None = None
    seeds: tuple[PeerName, ...] = ()
    entries: tuple[Entry, ...] = ()
    holdings: Iterable[Holding] = ()


@dataclass(slots=True, frozen=True)
class Change:
    """One transaction, applied in this order.

    ``reset``: drop everything first. ``identity``: set it. ``seeds``: set them unless None.
    ``tokens_gone``: delete these entries. ``entries``: insert or replace. ``addrs_gone``: delete
    these holdings. ``holdings``: insert or replace.
    """

    reset: bool = False
    identity: Identity | None = None
    seeds: tuple[PeerName, ...] | None = None
    tokens_gone: tuple[int, ...] = ()
    entries: tuple[Entry, ...] = ()
    addrs_gone: tuple[int, ...] = ()
    holdings: tuple[Holding, ...] = ()


class Store(Protocol):
    """A durable home of the state. Blocking; the shell calls it from a worker thread."""

    def load(self) -> Stored:
        """Everything, as the last commit left it.

        Raises:
            WeftError: it cannot be read, or is not ours to read: nothing is reset.
        """
        ...

    def commit(self, change: Change, /) -> None:
        """Make ``change`` durable: all of it or, when this raises, nothing.

        Raises:
            WeftError: with the reason, as for a full disk.
        """
        ...


class MemoryStore:
    """A store that lives as long as its process: for tests and for nodes that may forget."""

    def __init__(self) -> None:
        self._identity: Identity | None = None
        self._seeds: tuple[PeerName, ...] = ()
        self._entries: dict[int, Entry] = {}
        self._holdings: dict[int, Holding] = {}

    def load(self) -> Stored:
        """A copy of what is held."""
        return Stored(
            self._identity,
            self._seeds,
            tuple(self._entries[token] for token in sorted(self._entries)),
            tuple(self._holdings.values()),
        )

    def commit(self, change: Change) -> None:
        """Apply; never fails."""
        if change.reset:
            self._identity, self._seeds = None, ()
            self._entries.clear()
            self._holdings.clear()
        if change.identity is not None:
            self._identity = change.identity
        if change.seeds is not None:
            self._seeds = change.seeds
        for token in change.tokens_gone:
            self._entries.pop(token, None)
        self._entries.update((entry.token, entry) for entry in change.entries)
        for addr in change.addrs_gone:
            self._holdings.pop(addr, None)
        self._holdings.update((holding.addr, holding) for holding in change.holdings)
