"""The ring: who owns which piece of the range.

Entries are sorted by token; a piece runs from its token to the next, the last one past the end of
the range to the first token. Every address has one owner as soon as there is an entry. Tokens are
never removed: other peers would bring them back.

Source of truth: ipam specification 2; vectors ``ipam_ring.json``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import eq, gt, itemgetter
from typing import Final

from base.errors import LocalProtocolError, RemoteProtocolError
from ipam.address import Range, format_address, merge_adjacent
from ipam.store import Entry

#: By how much a take-over raises versions, so as to win against what the owner raised meanwhile.
TAKEOVER_STEP: Final = 100
#: Versions from here on are refused. Ours stay below: somebody who gives us a piece of the version
#: before it would otherwise have everybody refuse our ring with our next word on it.
VERSION_MAX: Final = 1 << 31

_token: Final = itemgetter(0)


class RingError(RemoteProtocolError):
    """A ring of a peer that is malformed, or contradicts ours."""


def raised(version: int, by: int = 1) -> int:
    """The next version."""
    return min(version + by, VERSION_MAX - 1)


def distance(universe: Range, start: int, end: int) -> int:
    """Addresses from ``start`` on to ``end``; if they are equal, the whole range."""
    return end - start if end > start else (universe.end - start) + (end - universe.start)


def check_entries(universe: Range, entries: Sequence[Entry]) -> None:
    """Tokens ascend, lie in the range, and no piece has more free addresses than addresses.

    Raises:
        RingError: which rule is broken.
    """
    if not entries:
        return
    tokens = [entry[0] for entry in entries]
    following = [*tokens[1:], tokens[0]]
    # one rule after the other, as Weave does: of several broken ones both tell the same
    if any(map(gt, tokens, tokens[1:])):
        raise RingError("Ring not sorted")
    if any(map(eq, tokens, tokens[1:])):
        raise RingError("Token appears twice in ring")
    if tokens[0] < universe.start or tokens[-1] >= universe.end:
        raise RingError("Token is out of range")
    for (token, _, _, free), after in zip(entries, following, strict=True):
        if free > (room := distance(universe, token, after)):
            raise RingError(
                f"Entry {format_address(token)}-{format_address(after)} "
                f"reporting too much free space: {free} > {room}"
            )


class Ring:
    """The ring as the peer with the number ``peer`` sees it.

    Changed tokens collect in ``dirty`` until somebody takes them.
    """

    def __init__(
        self,
        universe: Range,
        peer: int,
        entries: Iterable[Entry] = (),
        seeds: tuple[int, ...] = (),
    ) -> None:
        self.universe = universe
        self.peer = peer
        self.entries: list[Entry] = list(entries)
        self.seeds = seeds
        self.dirty: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def check(self) -> None:
        """Raises RingError if an invariant does not hold."""
        check_entries(self.universe, self.entries)

    # --- looking at it ---------------------------------------------------------------------------

    def index_of(self, addr: int) -> int:
        """Index of the entry whose piece holds ``addr``; the last one when it wraps. Not empty."""
        return (bisect_right(self.entries, addr, key=_token) or len(self.entries)) - 1

    def owner(self, addr: int) -> int:
        """Number of the peer that owns ``addr``, 0 in an empty ring.

        Raises:
            LocalProtocolError: ``addr`` is outside the range.
        """
        if not self.universe.contains(addr):
            raise LocalProtocolError(f"{format_address(addr)} is not in the ring's range")
        return self.entries[self.index_of(addr)].peer if self.entries else 0

    def pieces(self, index: int) -> list[Range]:
        """The piece of an entry; two ranges, the one at the start first, when it wraps."""
        token = self.entries[index].token
        following = self.entries[(index + 1) % len(self.entries)].token
        return self._between(token, following)

    def _between(self, token: int, following: int) -> list[Range]:
        start, end = self.universe
        if following > token:
            return [Range(token, following)]
        if following == start:
            return [Range(token, end)]
        return [Range(start, following), Range(token, end)]

    def all_pieces(self) -> Iterator[tuple[Entry, Range]]:
        """Every entry with its range, a wrapping one twice."""
        for index, entry in enumerate(self.entries):
            for piece in self.pieces(index):
                yield entry, piece

    def owned(self, peer: int) -> list[Range]:
        """Ranges of ``peer`` in order, one for each piece, neighbours not joined."""
        return sorted(
            piece
            for index, entry in enumerate(self.entries)
            if entry.peer == peer
            for piece in self.pieces(index)
        )

    def owned_joined(self, peer: int) -> list[Range]:
        """The same with neighbours joined."""
        return merge_adjacent(self.owned(peer))

    def peers(self) -> set[int]:
        """All owners."""
        return {entry.peer for entry in self.entries}

    def heir(self, valid: Callable[[int], bool]) -> int:
        """The first owner in token order that is valid and not ourselves; 0 for none."""
        return next((e.peer for e in self.entries if e.peer != self.peer and valid(e.peer)), 0)

    def donors(self, where: Range, chance: Callable[[], float]) -> list[int]:
        """Other peers that report free addresses in pieces touching ``where``, whom to ask first.

        Weighted by all that is free in these pieces times ``chance()``, a number in [0, 1).
        """
        weights: dict[int, int] = {}
        last = len(self.entries) - 1
        for index, (token, peer, _, free) in enumerate(self.entries):
            if index < last and self.entries[index + 1].token <= where.start:
                continue
            if token >= where.end:
                break
            if peer != self.peer and free > 0:
                weights[peer] = weights.get(peer, 0) + free
        weighted = sorted(((weight * chance(), peer) for peer, weight in weights.items()))
        return [peer for _, peer in reversed(weighted)]

    # --- changing it -----------------------------------------------------------------------------

    def _put(self, index: int, entry: Entry) -> None:
        self.entries[index] = entry
        self.dirty.add(entry.token)

    def _insert(self, index: int, entry: Entry) -> None:
        self.entries.insert(index, entry)
        self.dirty.add(entry.token)

    def replace(self, entries: list[Entry], seeds: tuple[int, ...], changed: set[int]) -> None:
        """Take the outcome of a merge, in which the tokens ``changed`` differ."""
        self.entries, self.seeds = entries, seeds
        self.dirty |= changed

    def claim_for_peers(self, peers: Sequence[int]) -> None:
        """Divide an empty ring among ``peers``, halving range and list, and note them as seeds.

        Raises:
            LocalProtocolError: it is not empty.
        """
        if self.entries:
            raise LocalProtocolError("the range is divided already")
        self._divide(*self.universe, peers)
        self.seeds = tuple(peers)

    def _divide(self, start: int, end: int, peers: Sequence[int]) -> None:
        share = end - start
        if share == 0 or not peers:
            return
        if share == 1 or len(peers) == 1:
            self._insert(len(self.entries), Entry(start, peers[0], 0, share))
            return
        half = len(peers) // 2
        middle = start + share // 2
        self._divide(start, middle, peers[:half])
        # an odd address stays with the lower half, uncounted: all must divide alike
        self._divide(middle + share % 2, end, peers[half:])

    def grant(self, where: Range, peer: int) -> None:
        """Make ``peer`` the owner of ``where``, all of which is ours.

        Raises:
            LocalProtocolError: it is not.
        """
        start, end = where
        ours = self.owned_joined(self.peer)
        if start >= end or not any(one.start <= start and end <= one.end for one in ours):
            raise LocalProtocolError(f"{where} is not all ours")
        entries, universe = self.entries, self.universe
        index = self.index_of(start)
        following = entries[(index + 1) % len(entries)].token
        free = min(distance(universe, start, following), end - start)
        if entries[index].token == start:
            self._put(index, Entry(start, peer, raised(entries[index].version), free))
        else:
            before = entries[index]
            room = distance(universe, before.token, start)
            self._put(index, before._replace(version=raised(before.version), free=room))
            # an address before the first token belongs to the last piece
            index = bisect_right(entries, start, key=_token) - 1
            self._insert(index + 1, Entry(start, peer, 0, free))
            index += 1
        index += 1
        while index < len(entries) and entries[index].token < end:
            one = entries[index]
            room = distance(universe, one.token, end)
            self._put(index, Entry(one.token, peer, raised(one.version), min(one.free, room)))
            index += 1
        if end == universe.end:
            end, index = universe.start, 0
        if index == len(entries) or entries[index].token != end:
            following = entries[index % len(entries)].token
            self._insert(index, Entry(end, self.peer, 0, distance(universe, end, following)))

    def transfer(self, peer: int, to: int) -> list[Range]:
        """Everything of one peer to another; the ranges, in order."""
        gained: list[Range] = []
        for index, entry in enumerate(self.entries):
            if entry.peer == peer:
                gained += self.pieces(index)
                version = raised(entry.version, TAKEOVER_STEP)
                self._put(index, entry._replace(peer=to, version=version))
        return sorted(gained)

    def set_free(self, token: int, free: int) -> bool:
        """Report the free addresses of a piece of ours; true if that is news.

        Raises:
            LocalProtocolError: not ours, or more than there is room for.
        """
        index = self.index_of(token)
        entry = self.entries[index]
        if entry.token != token or entry.peer != self.peer:
            raise LocalProtocolError(f"no piece of ours begins at {format_address(token)}")
        if free > sum(piece.size for piece in self.pieces(index)):
            raise LocalProtocolError(f"{free} free addresses are more than the piece has")
        if entry.free == free:
            return False
        self._put(index, entry._replace(free=free, version=raised(entry.version)))
        return True
