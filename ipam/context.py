"""What the allocator's parts share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ipam.election import Election
from ipam.options import AllocatorOptions, Mode
from ipam.outbox import Outbox
from ipam.peers import PeerBook
from ipam.state import LocalState


@dataclass(slots=True)
class Context:
    """State, peers, election and outbox of one allocator.

    ``told_changed``: what our gossip tells besides the ring is new. ``stopped``: we have left.
    """

    options: AllocatorOptions
    rng: random.Random
    state: LocalState
    peers: PeerBook
    election: Election
    out: Outbox
    told_changed: Callable[[], None]
    stopped: bool = False

    def establish(self, now: float) -> bool:
        """Somebody needs a ring: do what leads to one; true if there is one now."""
        if self.state.ring or self.stopped:
            return False
        if self.options.mode is Mode.SEED and self.options.seeds:
            self._divide(tuple(sorted({int(name) for name in self.options.seeds})))
            return True
        if self.election.establish(now):
            self.told_changed()
            self.out.broadcast()
        return self.divide_if_decided()

    def divide_if_decided(self) -> bool:
        """Create the ring if enough voters agree; true if so."""
        seeds = self.election.seeds()
        if seeds is None or self.state.ring:
            return False
        self._divide(seeds)
        return True

    def _divide(self, seeds: tuple[int, ...]) -> None:
        self.state.divide(seeds)
        self.election.over()
        self.out.broadcast()
