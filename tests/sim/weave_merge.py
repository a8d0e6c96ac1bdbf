"""Weave's merge of two rings as specification 3 tells it, holes and all: a model to live beside.

Only for tests: that the model is right is shown by the vectors of the real program
(:mod:`tests.sim.test_weave_model`). The letters are the rows of the specification's table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipam.address import Range
from ipam.ring import Ring, RingError, check_entries
from ipam.store import Entry

#: Whether any of these ranges is not entirely free in the space of the one who asks.
Allocated = Callable[[list[Range]], bool]


def weave_merge(
    ours: Ring,
    universe: Range,
    theirs: Sequence[Entry],
    seeds: tuple[int, ...],
    allocated: Allocated,
) -> bool:
    """Merge into ``ours``; true if it is "updated".

    Raises:
        RingError: refused; in Weave the connection ends.
    """
    check_entries(universe, theirs)
    if seeds and ours.seeds and seeds != ours.seeds:
        raise RingError("Received ring was seeded differently from ours")
    if universe != ours.universe:
        raise RingError("Received range differs from ours")
    walk = _Walk(ours, allocated)
    walk.run(theirs)
    merged = Ring(ours.universe, ours.peer, walk.out)
    for index, entry in enumerate(merged.entries):
        room = sum(piece.size for piece in merged.pieces(index))
        if entry.peer == ours.peer and entry.free > room:
            merged.entries[index] = entry._replace(free=room)
    try:
        merged.check()
    except RingError as err:
        raise RingError(f"Merge of incoming data causes: {err}") from err
    ours.replace(merged.entries, ours.seeds or seeds, {entry.token for entry in merged.entries})
    return walk.updated


class _Walk:
    """Both sorted lists side by side. ``owner`` is whose the last entry taken from ours is."""

    def __init__(self, ours: Ring, allocated: Allocated) -> None:
        self.ours, self.us = ours, ours.peer
        self.allocated = allocated
        self.out: list[Entry] = []
        self.updated = False
        self.owner: int | None = None

    def run(self, theirs: Sequence[Entry]) -> None:
        mine, i, j = self.ours.entries, 0, 0
        while i < len(mine) and j < len(theirs):
            my, their = mine[i], theirs[j]
            if my.token < their.token:
                self._keep(my)  # A
                i += 1
            elif my.token > their.token:
                if self.owner == self.us != their.peer and self.allocated(
                    [Range(their.token, my.token)]
                ):
                    raise RingError("says it owns the IP range which I think I own")  # B
                self._take(their)  # B'
                j += 1
            else:
                self._same_token(i, my, their)
                i, j = i + 1, j + 1
        self.out += mine[i:]  # E
        if j < len(theirs):
            if self.owner == self.us != theirs[j].peer:
                raise RingError("says it owns the IP range which I think I own")  # F
            for their in theirs[j:]:
                self._take(their)  # F'

    def _keep(self, my: Entry) -> None:
        self.out.append(my)
        self.owner = my.peer

    def _take(self, their: Entry) -> None:
        self.out.append(their)
        self.owner, self.updated = None, True

    def _same_token(self, index: int, my: Entry, their: Entry) -> None:
        in_use = my.peer == self.us != their.peer and self.allocated(self.ours.pieces(index))
        if my.version > their.version or my[:3] == their[:3]:
            self._keep(my)  # C1, C2
        elif my.version == their.version:
            if in_use:
                raise RingError("Inconsistent entries")  # C3
            if my.free >= their.free:
                self._keep(my)  # C4
            else:
                self._take(their)  # C5
        elif my.peer == self.us == their.peer:
            self.out.append(my._replace(version=their.version + 1))  # D2
        elif in_use:
            raise RingError("Received update for IP range I own")  # D4
        else:
            self._take(their)  # D1, D3
