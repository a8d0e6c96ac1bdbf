"""Merging the ring of another peer into ours, so that all peers converge.

Token by token the higher version wins. Weave tests on the way whether a piece that it loses holds
allocations; those tests have holes (specification 3, H1 to H3). Here the whole outcome is computed
on a copy first, then what we owned before is compared with what we own after: it is refused if and
only if an address in use would be lost (R1); whoever merges drops what is lost from its space (R2).

Two owners with one version cannot both be right. Who reports more free addresses wins, then the
lower name; if that is us the version is raised, so that the others, Weave too, yield (R3).

Source of truth: ipam specification 3; vectors ``ipam_ring.json`` (merge, random_walk).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from base.names import PeerName, format_peer
from ipam.address import Range, format_address, merge_adjacent, subtract
from ipam.ring import VERSION_MAX, Ring, RingError, check_entries, distance, raised
from ipam.store import Entry

#: A version that rises by more than this at once is an attack: the owner could not outbid it long.
VERSION_JUMP_MAX: Final = 1 << 20

Used = Callable[[Sequence[Range]], int | None]


class MergeConflictError(RingError):
    """The outcome would take addresses in use from us.

    ``taken_over``: only in pieces that another peer took over, as one may from a peer that seems
    dead; ``outcome`` is what the merge would give.
    """

    def __init__(self, text: str, outcome: Outcome, *, taken_over: bool) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.taken_over = taken_over


@dataclass(slots=True)
class Outcome:
    """A merged ring. ``updated`` as Weave sees it: some entry is theirs; ``changed`` holds every
    token that differs, ``gained`` and ``lost`` what became ours and what is ours no longer.
    """

    entries: list[Entry]
    seeds: tuple[int, ...]
    updated: bool = False
    changed: set[int] = field(default_factory=set)
    gained: list[Range] = field(default_factory=list)
    lost: list[Range] = field(default_factory=list)


def merge(
    ours: Ring,
    universe: Range,
    theirs: Sequence[Entry],
    seeds: tuple[int, ...],
    used: Used,
    nick: Callable[[int], str] = lambda _: "",
) -> Outcome:
    """What ``ours`` and another ring make together; nothing is changed.

    ``used`` tells an address in use on this host inside some ranges, or None; ``nick`` what a peer
    is called, "" if unknown.

    Raises:
        MergeConflictError: an address in use would be lost.
        RingError: theirs is malformed, of another range or division, or hostile.
    """
    check_entries(universe, theirs)
    if seeds and ours.seeds and seeds != ours.seeds:
        raise RingError(
            "IP allocation was seeded by different peers "
            f"(received: {_names(seeds, nick)}, ours: {_names(ours.seeds, nick)})"
        )
    if universe != ours.universe:
        raise RingError(
            "Incompatible IP allocation ranges "
            f"(received: {universe.as_cidr_text()}, ours: {ours.universe.as_cidr_text()})"
        )
    outcome = _walk(ours, theirs)
    # seeds alone would only poison us
    outcome.seeds = ours.seeds or (seeds if theirs else ())
    if not outcome.changed:
        return outcome
    _clamp(universe, outcome)
    mine = ours.peer
    before = ours.owned_joined(mine)
    after = Ring(universe, mine, outcome.entries).owned_joined(mine)
    outcome.gained, outcome.lost = subtract(after, before), subtract(before, after)
    if outcome.lost and (lost := used(outcome.lost)) is not None:
        seized = used(subtract(outcome.lost, _moved(ours, outcome)))
        text = _conflict(ours, outcome, lost if seized is None else seized)
        raise MergeConflictError(text, outcome, taken_over=seized is None)
    return outcome


def _moved(ours: Ring, outcome: Outcome) -> list[Range]:
    """Pieces of ours whose entry has another owner and a higher version: taken over, and maybe
    divided since. Not by how much it is higher: we may have raised ours meanwhile, unheard.
    """
    after = {entry.token: entry for entry in outcome.entries}
    return merge_adjacent(
        sorted(
            piece
            for mine, piece in ours.all_pieces()
            if mine.peer == ours.peer
            and (entry := after[mine.token]).peer != mine.peer
            and entry.version > mine.version
        )
    )


def _names(peers: Sequence[int], nick: Callable[[int], str]) -> str:
    """Seeds as the operators of both sides compare them: names, and what is known beside them."""
    named = [(PeerName.from_int(peer), nick(peer)) for peer in peers]
    return f"[{' '.join(format_peer(*one) if one[1] else str(one[0]) for one in named)}]"


def _walk(ours: Ring, theirs: Sequence[Entry]) -> Outcome:
    """The table of specification 3 without its tests for allocations."""
    mine, own = ours.entries, ours.peer
    merged: list[Entry] = []
    changed: set[int] = set()
    updated = False
    index, count = 0, len(mine)
    emit = merged.append
    for their in theirs:
        token, peer, version, _ = their
        while index < count and mine[index][0] < token:
            emit(mine[index])
            index += 1
        if version >= VERSION_MAX:
            raise RingError(f"hostile version {version} of {format_address(token)}")
        if index == count or mine[index][0] != token:
            emit(their)
            changed.add(token)
            updated = True
            continue
        my = mine[index]
        index += 1
        if version < my.version or (version == my.version and peer == my.peer):
            emit(my)
        elif version > my.version:
            if version - my.version > VERSION_JUMP_MAX:
                raise RingError(f"version of {format_address(token)} jumps to {version}")
            changed.add(token)
            if peer == own == my.peer:
                # we have lost our memory of raising it; what we know is right nevertheless
                emit(Entry(token, own, raised(version), my.free))
            else:
                emit(their)
                updated = True
        else:
            winner = tie_winner(my, their, own)
            if winner != my:
                changed.add(token)
                updated |= winner.peer != my.peer
            emit(winner)
    merged += mine[index:]
    return Outcome(merged, (), updated, changed)


def tie_winner(my: Entry, their: Entry, own: int) -> Entry:
    """Of two owners with one version (R3); if that is us, ``own``, the entry is raised."""
    winner = my if (my.free, their.peer) > (their.free, my.peer) else their
    return winner._replace(version=raised(winner.version)) if winner.peer == own else winner


def _clamp(universe: Range, outcome: Outcome) -> None:
    """Cut every entry's free count to its piece: a split by somebody else may have shortened it."""
    entries = outcome.entries
    for index, entry in enumerate(entries):
        following = entries[index + 1][0] if index + 1 < len(entries) else entries[0][0]
        room = distance(universe, entry[0], following)
        if entry[3] > room:
            entries[index] = entry._replace(free=room)
            outcome.changed.add(entry[0])


def _conflict(ours: Ring, outcome: Outcome, addr: int) -> str:
    """Why ``addr`` would be lost, in the words that operators of Weave search for."""
    after = Ring(ours.universe, ours.peer, outcome.entries)
    entry = after.entries[after.index_of(addr)]
    mine = next((one for one in ours.entries if one.token == entry.token), None)
    at, peer = format_address(entry.token), PeerName.from_int(entry.peer)
    if mine is None:
        return f"Peer {peer} says it owns the IP range from {at}, which I think I own"
    if mine.version == entry.version:
        owner = PeerName.from_int(mine.peer)
        return f"Inconsistent entries for {at}: owned by {owner} but incoming message says {peer}"
    return (
        f"Received update for IP range I own at {at} v{mine.version}: "
        f"incoming message says owner {peer} v{entry.version}"
    )
