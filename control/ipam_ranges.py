"""Which ranges of addresses this peer owns, followed change by change.

For what has to know on the host (``--no-masq-local``). Most changes of the ring only say how much
is free; those that move a border or an owner are told apart here without looking at the whole ring.

Source of truth: ipam specification 2, 9.6.
"""

from __future__ import annotations

from collections.abc import Iterable

from base.names import PeerName
from ipam.address import Range, merge_adjacent
from ipam.store import Change, Entry


class OwnedTokens:
    """The ring's tokens and whether the piece behind each is ours."""

    def __init__(self, ourself: PeerName, universe: Range, entries: Iterable[Entry]) -> None:
        self._ourself = int(ourself)
        self._universe = universe
        self._ours: dict[int, bool] = {}
        self._note(entries)

    def apply(self, change: Change) -> bool:
        """Take over a durable change; whether it may have changed :meth:`ranges`."""
        moved = change.reset
        if change.reset:
            self._ours.clear()
        for token in change.tokens_gone:
            moved |= self._ours.pop(token, None) is not None
        return self._note(change.entries) or moved

    def _note(self, entries: Iterable[Entry]) -> bool:
        moved = False
        for entry in entries:
            ours = entry.peer == self._ourself
            if self._ours.get(entry.token) is not ours:
                self._ours[entry.token] = ours
                moved = True
        return moved

    def ranges(self) -> list[Range]:
        """What is ours, in order, neighbours joined."""
        if not self._ours:
            return []
        tokens = sorted(self._ours)
        start, end = self._universe
        pieces = [
            Range(token, following)
            for token, following in zip(tokens, [*tokens[1:], end], strict=True)
            if self._ours[token]
        ]
        if tokens[0] > start and self._ours[tokens[-1]]:  # the last piece goes on at the start
            pieces.insert(0, Range(start, tokens[0]))
        return merge_adjacent(pieces)
