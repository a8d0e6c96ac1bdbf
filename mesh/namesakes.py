"""Telling living namesakes from restarted routers, whose incarnations never come back.

Ours: after a restart, records of our earlier incarnation arrive for a while; their versions stop
growing, since nobody makes new ones. A router that has our name at the same time outlives our
records as we outlive its, so its versions grow for as long as both live.

Others: two routers with one name take each other's connection to us away, by turns and for ever.
The original says nothing of either. Source of truth: mesh specification 3.6, 6.3, 10.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from base.names import PeerName

#: What is left of the past has come by then, from everybody we first connect to.
SETTLED_S: Final = 3.0
#: Growths after that which nothing but a living router explains.
GROWTHS: Final = 2
#: Incarnations and names that are remembered; honest networks have no more.
_SEEN_MAX: Final = 64
_NAMES_MAX: Final = 1024
#: The last words of a router that was just restarted may be read after its successor's first.
_IN_FLIGHT_S: Final = 1.0


@dataclass(slots=True)
class _Seen:
    """One incarnation: its highest version, when it was first heard of, how often it grew since."""

    version: int
    first_at: float
    growths: int = 0


class Namesakes:
    """Other incarnations of our own record, by UID."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def heard(self, uid: int, version: int, now: float) -> bool:
        """A record of ours that we did not make; True once, when its maker must be alive."""
        seen = self._seen.get(uid)
        if seen is None:
            if len(self._seen) < _SEEN_MAX:
                self._seen[uid] = _Seen(version, now)
            return False
        if version <= seen.version:
            return False
        seen.version = version
        if now - seen.first_at < SETTLED_S:
            return False
        seen.growths += 1
        return seen.growths == GROWTHS


@dataclass(slots=True, frozen=True)
class _Introduced:
    """The last introduction of one incarnation."""

    uid: int
    addr: str
    first_at: float


class Twins:
    """Other routers that share a name, by their introductions to us."""

    def __init__(self) -> None:
        self._last: dict[PeerName, tuple[_Introduced, ...]] = {}

    def introduced(
        self, name: PeerName, uid: int, addr: str, now: float, heard_at: Callable[[int], float]
    ) -> str | None:
        """Somebody said who it is; the address of another living router of that name.

        ``heard_at`` is when the connection that we have to incarnation ``uid`` last brought a
        message; -inf without one.
        """
        known = self._last.pop(name, ())
        earlier = next((each for each in known if each.uid == uid), None)
        others = [each for each in known if each.uid != uid]
        this = _Introduced(uid, addr, now if earlier is None else earlier.first_at)
        self._last[name] = (*others[-1:], this)
        if len(self._last) > _NAMES_MAX:
            del self._last[next(iter(self._last))]
        if earlier is None or not others:
            return None
        other = others[-1]
        # after its successor spoke to us, an incarnation is silent: here both have spoken since
        came_back = other.first_at > earlier.first_at
        lives_on = heard_at(other.uid) > earlier.first_at + _IN_FLIGHT_S
        return other.addr if came_back or lives_on else None
