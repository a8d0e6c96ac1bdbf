"""Ring, space and holdings of this node, always in step, and which of it is durable.

What others may see is :attr:`LocalState.shown`, the ring of the last commit. Everything after it
can be undone.

An address that is held here although the ring gives it to another peer, or to nobody yet, is a
*stray*: promised to somebody on this host before its owner could be asked, or taken over from us
while in use. It is claimed for its holder as soon as it is ours. Weave refuses the whole ring in
the second case, for ever, and drops the claim in the first.

Source of truth: ipam specification 6.1, 9, 20.6, 20.12.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from base.names import PeerName
from ipam.address import Range
from ipam.holdings import Holdings
from ipam.journal import Journal
from ipam.merge import Outcome
from ipam.ring import Ring
from ipam.space import Space
from ipam.store import Change, Entry, Holding, Identity, Stored

_NO_CHANGE: Final = Change()
_NOWHERE: Final = Range(0, 0)
#: How many blocks are looked at for the best one to give; of a space full of holes there are many.
_BLOCKS_MAX: Final = 256


@dataclass(slots=True, frozen=True)
class Shown:
    """A ring as others may see it."""

    entries: tuple[Entry, ...] = ()
    seeds: tuple[int, ...] = ()


class LocalState:
    """See the module."""

    def __init__(self, name: PeerName, universe: Range, reuse_delay_s: float) -> None:
        self.name = name
        self.universe = universe
        self.peer = int(name)
        self._reuse_delay_s = reuse_delay_s
        self._journal = Journal()
        self.ring = Ring(universe, self.peer)
        self.space = Space(self._journal)
        self.holdings = Holdings(self._journal)
        #: Addresses held but not ours, in no order that matters.
        self.strays: dict[int, None] = {}
        #: Addresses held outside the range.
        self.outside: dict[int, None] = {}
        self.shown = Shown()
        self._sealed: Shown | None = None
        # what the start owes the store, until a commit succeeds
        self._owed_reset = self._owed_identity = False
        self._owed_addrs: frozenset[int] = frozenset()
        # by how much the free addresses of a piece have changed, and the piece looked at last;
        # or that all are to be counted anew
        self._touched: dict[int, int] = {}
        self._touched_all = False
        self._last_piece, self._last_token = _NOWHERE, 0

    # --- start -----------------------------------------------------------------------------------

    def load(self, stored: Stored) -> str | None:
        """Take what the store holds, if it is ours; a line for the operator if it is not.

        Raises:
            RingError: its ring breaks an invariant.
        """
        identity = stored.identity
        if identity is None:
            self._owed_identity = True
            return None
        if identity != Identity(self.name, self.universe):
            self._owed_identity = self._owed_reset = True
            if identity.name != self.name:
                return f"stored allocations are those of peer {identity.name}: starting afresh"
            return (
                f"stored allocations are of the range {identity.universe.as_cidr_text()}, not "
                f"{self.universe.as_cidr_text()}: starting afresh"
            )
        seeds = tuple(map(int, stored.seeds))
        ring = Ring(self.universe, self.peer, stored.entries, seeds)
        ring.check()
        self.ring = ring
        self.shown = Shown(tuple(ring.entries), seeds)
        for piece in ring.owned_joined(self.peer):
            self.space.add(piece)
        for holding in stored.holdings:
            self._hold(holding)
        self._settle()
        return None

    def adopt(self, in_use: Holding) -> str | None:
        """An address found in use at start; a line for the operator if it contradicts the store."""
        held = self.holdings.at(in_use.addr)
        if held == in_use:
            return None
        notice = None
        if held is not None:
            if held.ident != in_use.ident:
                notice = f"address of {held.ident} is in use by {in_use.ident}"
            self.holdings.remove(in_use.addr)
            self.holdings.add(in_use)
        else:
            self._hold(in_use)
        self._owed_addrs |= {in_use.addr}
        self._settle()
        return notice

    def _settle(self) -> None:
        """What was done so far is where rolling back leads to."""
        self._journal.seal()
        self._journal.commit()
        self.holdings.touched.clear()
        self._touched_all = True

    # --- holdings --------------------------------------------------------------------------------

    def is_mine(self, addr: int) -> bool:
        """Whether the ring gives ``addr`` to us."""
        return self.space.is_free(addr) or self.space.is_ours(addr)

    def allocate(self, where: Range, now: float) -> int | None:
        """A free address of ours inside ``where``, to be held next."""
        return self.space.allocate(where, now)

    def hold_allocated(self, holding: Holding) -> None:
        """Record the holder of an address that :meth:`allocate` gave."""
        self.holdings.add(holding)
        self._touch(holding.addr, -1)

    def hold(self, holding: Holding) -> None:
        """Record the holder of an address that nobody here holds, ours or not."""
        if self.space.is_free(holding.addr):
            self._touch(holding.addr, -1)
        self._hold(holding)

    def _hold(self, holding: Holding) -> None:
        self.holdings.add(holding)
        addr = holding.addr
        if self.space.is_free(addr):
            self.space.claim(addr)
        elif self.universe.contains(addr):
            self._stray(addr)
        else:
            self._journal.note(self.outside.pop, addr, None)
            self.outside[addr] = None

    def release(self, addr: int, now: float) -> Holding | None:
        """Nobody here holds ``addr`` any more: who did."""
        held = self.holdings.remove(addr)
        if held is None:
            return None
        if self.space.is_ours(addr):
            self.space.free(addr, now + self._reuse_delay_s, now)
            self._touch(addr, 1)
        elif addr in self.strays:
            self._unstray(addr)
        elif addr in self.outside:
            self._journal.note(self.outside.__setitem__, addr, None)
            del self.outside[addr]
        return held

    def rename(self, holding: Holding) -> None:
        """Another holder of an address that is held."""
        self.holdings.remove(holding.addr)
        self.holdings.add(holding)

    def _stray(self, addr: int) -> None:
        self._journal.note(self.strays.pop, addr, None)
        self.strays[addr] = None

    def _unstray(self, addr: int) -> None:
        self._journal.note(self.strays.__setitem__, addr, None)
        del self.strays[addr]

    # --- the ring --------------------------------------------------------------------------------

    def take_outcome(self, outcome: Outcome) -> None:
        """Make a merge's outcome ours. Lost addresses that are in use become strays."""
        self.ring.replace(outcome.entries, outcome.seeds, outcome.changed)
        for lost in outcome.lost:
            self._disown(lost)
        for gained in outcome.gained:
            self._own(gained)
        self._ring_changed()

    def divide(self, peers: tuple[int, ...]) -> None:
        """Create the ring."""
        self.ring.claim_for_peers(peers)
        for piece in self.ring.owned_joined(self.peer):
            self._own(piece)
        self._ring_changed()

    def chunk_for(self, peer: int, where: Range) -> Range | None:
        """What to give to a peer that asks for ``where``: what Weave would, or as much beside what
        the peer owns, where that costs the fewest new tokens: these stay for ever.
        """
        biggest = self.space.biggest_to_give(where)
        if biggest is None:
            return None
        ring, universe = self.ring, self.universe
        tokens = {entry.token for entry in ring.entries} | {universe.end}

        def is_beside(block: Range) -> bool:
            around = [one for one in (block.start - 1, block.end) if universe.contains(one)]
            return peer in map(ring.owner, around)

        def cost(block: Range) -> tuple[int, bool]:
            return (block.start not in tokens) + (block.end not in tokens), block != biggest

        others = islice(self.space.blocks(where, biggest.size), _BLOCKS_MAX)
        return min(filter(is_beside, [biggest, *others]), key=cost, default=biggest)

    def grant(self, where: Range, peer: int) -> None:
        """Give free addresses of ours to a peer."""
        self.space.drop(where)
        self.ring.grant(where, peer)
        self._ring_changed()

    def take_over(self, peer: int) -> int:
        """Make all of a peer's pieces ours: the number of free addresses gained."""
        before = self.space.free_in(self.universe)
        for piece in self.ring.transfer(peer, self.peer):
            self._own(piece)
        self._ring_changed()
        return self.space.free_in(self.universe) - before

    def hand_over(self, heir: int, now: float) -> None:
        """Everything that is ours to the heir; what is held in it is forgotten."""
        for piece in self.ring.owned_joined(self.peer):
            for addr in self.space.used_in(piece):
                self.release(addr, now)
            self.space.drop(piece)
        self.ring.transfer(self.peer, heir)
        self._ring_changed()

    def _own(self, gained: Range) -> None:
        self.space.add(gained)
        for addr in [one for one in self.strays if gained.contains(one)]:
            self.space.claim(addr)
            self._unstray(addr)

    def _disown(self, lost: Range) -> None:
        for addr in self.space.used_in(lost):
            self.space.free(addr, 0.0, 0.0)
            self._stray(addr)
        self.space.drop(lost)

    def _ring_changed(self) -> None:
        self._touched_all = True
        self._last_piece = _NOWHERE

    def _touch(self, addr: int, change: int) -> None:
        """So many free addresses more in the piece of ours that ``addr`` is in."""
        start, end = self._last_piece
        if not start <= addr < end:
            index = self.ring.index_of(addr)
            self._last_token = self.ring.entries[index].token
            self._last_piece = next(one for one in self.ring.pieces(index) if one.contains(addr))
        token = self._last_token
        self._touched[token] = self._touched.get(token, 0) + change

    def _report_free(self) -> None:
        """Bring the ring up to date with the space: one new version a batch, not an address."""
        ring = self.ring
        if self._touched_all:
            for index, entry in enumerate(ring.entries):
                if entry.peer == self.peer:
                    free = sum(self.space.free_in(piece) for piece in ring.pieces(index))
                    ring.set_free(entry.token, free)
        else:
            for token, change in self._touched.items():
                ring.set_free(token, ring.entries[ring.index_of(token)].free + change)
        self._touched.clear()
        self._touched_all = False
        self._last_piece = _NOWHERE

    # --- what is durable -------------------------------------------------------------------------

    def seal(self) -> Change | None:
        """All that changed since the last seal, None for nothing."""
        self._report_free()
        ring, dirty = self.ring, self.ring.dirty
        entries: tuple[Entry, ...] = ()
        if dirty:
            entries = tuple(e for e in ring.entries if e.token in dirty)
            ring.dirty = set()
        gone: list[int] = []
        held: list[Holding] = []
        for addr in self.holdings.touched | self._owed_addrs:
            holding = self.holdings.at(addr)
            if holding is None:
                gone.append(addr)
            else:
                held.append(holding)
        self.holdings.touched.clear()
        seeds = ring.seeds != self.shown.seeds
        change = Change(
            self._owed_reset,
            Identity(self.name, self.universe) if self._owed_identity else None,
            tuple(map(PeerName.from_int, ring.seeds)) if seeds else None,
            (),
            entries,
            tuple(gone),
            tuple(held),
        )
        self._journal.seal()
        if change == _NO_CHANGE:
            self._journal.commit()
            return None
        self._sealed = Shown(tuple(ring.entries), ring.seeds) if entries or seeds else self.shown
        return change

    def commit(self) -> bool:
        """The sealed change is durable; true if others see another ring now."""
        self._journal.commit()
        news = self._sealed is not None and self._sealed is not self.shown
        if self._sealed is not None:
            self.shown, self._sealed = self._sealed, None
        self._owed_reset = self._owed_identity = False
        self._owed_addrs = frozenset()
        return news

    def rollback(self) -> None:
        """Back to the last commit."""
        self._journal.rollback()
        self.ring = Ring(self.universe, self.peer, self.shown.entries, self.shown.seeds)
        self._sealed = None
        self.holdings.touched.clear()
        self._touched.clear()
        self._ring_changed()
