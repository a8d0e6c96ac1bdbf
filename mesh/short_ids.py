"""Who owns which short ID: 12-bit random numbers by which VXLAN peers address each other.

Several peers may claim one number; the one with the lowest name owns it. A router that loses its
own chooses another. Sleeve does not need them, the fastdp peers beside us do. Source of truth: mesh
specification 10.5, vectors ``peer_names.json``.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from base.names import PeerName
from mesh.features import SHORT_ID_BITS

SHORT_IDS: Final = 1 << SHORT_ID_BITS
_DRAWS: Final = 10


class Change(NamedTuple):
    """``invalidates``: what a number stood for has changed. ``bumped``: who lost ownership."""

    invalidates: bool
    bumped: PeerName | None = None


class ShortIDs:
    """Number → claimants. An emptied entry stays, so that its re-use is noticed."""

    def __init__(self) -> None:
        self._claims: dict[int, list[PeerName]] = {}

    def owner(self, short_id: int) -> PeerName | None:
        """The claimant with the lowest name."""
        return min(self._claims.get(short_id, ()), default=None)

    def others(self, short_id: int) -> int:
        """How many claimants do not own the number."""
        return max(0, len(self._claims.get(short_id, ())) - 1)

    def add(self, short_id: int, name: PeerName) -> Change:
        """``name`` claims the number."""
        fresh = short_id not in self._claims
        claims = self._claims.setdefault(short_id, [])
        if name in claims:
            return Change(False)
        before = min(claims, default=None)
        claims.append(name)
        if before is None:
            return Change(not fresh)
        return Change(True, before) if name < before else Change(False)

    def delete(self, short_id: int, name: PeerName) -> Change:
        """``name`` claims it no longer."""
        claims = self._claims.get(short_id, [])
        if name not in claims:
            return Change(False)
        owned = name == min(claims)
        claims.remove(name)
        return Change(owned and bool(claims))

    def choose(self, rng: random.Random) -> int | None:
        """A number nobody owns: by a few draws, else from all that are free; None: none is."""
        for _ in range(_DRAWS):
            drawn = rng.randrange(SHORT_IDS)
            if not self._claims.get(drawn):
                return drawn
        free = [number for number in range(SHORT_IDS) if not self._claims.get(number)]
        return rng.choice(free) if free else None
