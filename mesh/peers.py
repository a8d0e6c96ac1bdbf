"""All routers that we know: merging of topology updates, restarts, collection, short IDs.

Rules:
- Our own record is ours. An update that describes another incarnation of us makes us raise our
  version past it, or the mesh would go on believing the old one.
- Versions order the records of one incarnation; the UID only breaks ties. Placeholders stand for
  peers that somebody named and nobody described.
- An update is merged whole or, when any part of it is damaged, not at all.
- Peers that cannot be reached over anybody's connections are collected, unless a connection of ours
  refers to them.

Source of truth: mesh specification 1.3, 3.6, 10; vectors ``topology_gossip.json``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from base.errors import RemoteProtocolError
from base.names import PeerName
from mesh.peer import ConnectionRecord, Connections, Peer
from mesh.short_ids import ShortIDs
from mesh.topology import PeerRecord, Summary, decode_update, encode_update

PEERS_MAX: Final = 16_384
VERSION_END: Final = (1 << 64) - 1


@dataclass(slots=True, frozen=True)
class Merge:
    """What an update did. ``names`` are those it described, ``changed`` those that were news.

    ``self_modified``: our own record changed and has to be told. ``other_selves``: records of us
    that another incarnation made.
    """

    names: frozenset[PeerName] = frozenset()
    changed: frozenset[PeerName] = frozenset()
    self_modified: bool = False
    other_selves: tuple[Summary, ...] = ()


@dataclass(slots=True, frozen=True)
class Collected:
    """What a collection did: the peers that went, and whether our own record changed."""

    removed: tuple[Peer, ...] = ()
    self_modified: bool = False


class Peers:
    """The table of peers, ourself included from the start."""

    def __init__(self, ourself: Peer, rng: random.Random) -> None:
        self.ourself = ourself
        self.short_ids = ShortIDs()
        #: Grows whenever any connection record changes: routes are out of date then.
        self.generation = 0
        self._reached: tuple[int, frozenset[PeerName]] = (-1, frozenset())
        self._rng = rng
        self._by_name = {ourself.name: ourself}
        if ourself.short_id is not None:
            self.short_ids.add(ourself.short_id, ourself.name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_name.values())

    def get(self, name: PeerName) -> Peer | None:
        """The record of ``name``."""
        return self._by_name.get(name)

    def names(self) -> frozenset[PeerName]:
        """Of every known peer."""
        return frozenset(self._by_name)

    # --- references of connections ---------------------------------------------------------------

    def acquire(self, name: PeerName) -> Peer | None:
        """The known peer ``name`` with one more reference."""
        peer = self._by_name.get(name)
        if peer is not None:
            peer.references += 1
        return peer

    def acquire_or_add(self, newcomer: Peer) -> tuple[Peer, bool]:
        """As :meth:`acquire`; an unknown peer is entered as ``newcomer``.

        The known record is left as it is: what a handshake says never overwrites it. Second result:
        whether our own record changed (the newcomer took our short ID).
        """
        if (peer := self.acquire(newcomer.name)) is not None:
            return peer, False
        newcomer.references = 1
        self._by_name[newcomer.name] = newcomer
        self.generation += 1
        lost = self._claim(newcomer)
        return newcomer, lost and self._reassign_short_id()

    def release(self, peer: Peer) -> None:
        """One reference less."""
        peer.references -= 1

    # --- our own record --------------------------------------------------------------------------

    def bump_version(self) -> None:
        """Our own record changed."""
        self.ourself.version = min(self.ourself.version + 1, VERSION_END)

    def set_own_connection(self, record: ConnectionRecord) -> None:
        """Add or replace one of our connections; raises our version."""
        self.ourself.set_connections({**self.ourself.connections, record.remote: record})
        self.generation += 1
        self.bump_version()

    def drop_own_connection(self, remote: PeerName) -> None:
        """Remove one of our connections; raises our version."""
        kept = {name: rec for name, rec in self.ourself.connections.items() if name != remote}
        self.ourself.set_connections(kept)
        self.generation += 1
        self.bump_version()

    # --- updates ---------------------------------------------------------------------------------

    def encode(self, names: Iterable[PeerName]) -> bytes:
        """Update about those of ``names`` that are still known."""
        known = (self._by_name.get(name) for name in names)
        return encode_update(peer for peer in known if peer is not None)

    def apply_update(self, update: bytes) -> Merge:
        """Merge an update.

        Raises:
            RemoteProtocolError: it is damaged, or names more peers than we care to know; nothing
                was changed.
        """
        records = decode_update(update)
        lists = [self._list_to_read(record) for record in records]
        mentioned = {record.name for record in records}
        for connections in lists:
            if connections is not None:
                mentioned |= connections.keys()
        unknown = mentioned - self._by_name.keys()
        if len(self._by_name) + len(unknown) > PEERS_MAX:
            raise RemoteProtocolError(f"topology: more than {PEERS_MAX} peers")
        before = len(self._by_name)
        for name in unknown:
            self._by_name[name] = Peer(name)
        changed: set[PeerName] = set()
        other_selves: list[Summary] = []
        self_modified = lost_short_id = False
        for record, connections in zip(records, lists, strict=True):
            if record.name == self.ourself.name:
                if record.summary.uid != self.ourself.uid:
                    other_selves.append(record.summary)
                    self_modified |= self._outlive(record.summary)
                continue
            peer = self._by_name[record.name]
            if connections is None or not (
                record.name in unknown or _is_news(record.summary, peer)
            ):
                continue
            unknown -= {record.name}  # a second record of one update is compared with the first
            lost_short_id |= self._replace(peer, record.summary, connections)
            changed.add(record.name)
        if changed or len(self._by_name) != before:
            self.generation += 1
        if lost_short_id:
            self_modified |= self._reassign_short_id()
        names = frozenset(record.name for record in records)
        return Merge(names, frozenset(changed), self_modified, tuple(other_selves))

    def _list_to_read(self, record: PeerRecord) -> Connections | None:
        """The record's connections, unless the record is no news by its first fields."""
        peer = self._by_name.get(record.name)
        if record.name == self.ourself.name or (
            peer is not None and not _is_news(record.summary, peer)
        ):
            return None
        return record.connections()

    def _outlive(self, record: Summary) -> bool:
        """Raise our version past that of another incarnation of us."""
        ours = self.ourself
        if record.version < ours.version:
            return False
        if ours.version == VERSION_END:
            return False  # saturated: nothing is left to outlive it with
        ours.version = min(record.version + 1, VERSION_END)
        return True

    def _replace(self, peer: Peer, record: Summary, connections: Connections) -> bool:
        """Take over a record; whether we lost our short ID by it."""
        peer.version, peer.uid, peer.nick = record.version, record.uid, record.nick
        peer.set_connections(connections)
        if record.short_id == peer.short_id:
            return False
        if peer.short_id is not None:
            self.short_ids.delete(peer.short_id, peer.name)
        peer.short_id = record.short_id
        return self._claim(peer)

    # --- short IDs -------------------------------------------------------------------------------

    def _claim(self, peer: Peer) -> bool:
        """Enter a peer's short ID; whether ours was lost to it."""
        if peer.short_id is None:
            return False
        return self.short_ids.add(peer.short_id, peer.name).bumped == self.ourself.name

    def _reassign_short_id(self) -> bool:
        """Choose another short ID for us; False when all are taken."""
        chosen = self.short_ids.choose(self._rng)
        if chosen is None:
            return False
        if self.ourself.short_id is not None:
            self.short_ids.delete(self.ourself.short_id, self.ourself.name)
        self.ourself.short_id = chosen
        self.short_ids.add(chosen, self.ourself.name)
        self.bump_version()
        return True

    # --- collection ------------------------------------------------------------------------------

    def reachable(self) -> frozenset[PeerName]:
        """Names that anybody's connections lead to from us, ours included; not all need be known.

        Connections of any state count, in the direction in which they were told.
        """
        if self._reached[0] != self.generation:
            reached = {self.ourself.name}
            frontier = [self.ourself.name]
            while frontier:
                peer = self._by_name.get(frontier.pop())
                if peer is not None and len(reached) < len(self._by_name):
                    fresh = peer.neighbours - reached
                    reached |= fresh
                    frontier += fresh
            self._reached = (self.generation, frozenset(reached))
        return self._reached[1]

    def collect(self) -> Collected:
        """Drop the peers that nothing leads to."""
        reached = self.reachable()
        removed = tuple(
            peer
            for name, peer in self._by_name.items()
            if name not in reached and not peer.references
        )
        for peer in removed:
            del self._by_name[peer.name]
            if peer.short_id is not None:
                self.short_ids.delete(peer.short_id, peer.name)
        if not removed:
            return Collected()
        self.generation += 1
        ours = self.ourself
        owned = ours.short_id is None or self.short_ids.owner(ours.short_id) == ours.name
        return Collected(removed, False if owned else self._reassign_short_id())


def _is_news(record: Summary, peer: Peer) -> bool:
    if record.version != peer.version:
        return record.version > peer.version
    if record.uid != peer.uid:
        return record.uid > peer.uid
    return record.short_id is not None and peer.short_id is None
