"""Which peers there are, what they call themselves, and who can be reached.

The topology is the authority on names, also on those of owners of space that have left it.
Nicknames in gossip count only for peers that it never knew: in Weave anybody may rename anybody,
so that the next ``rmpeer`` hits another. That a peer sends or appears in them tells that it takes
part in the allocation, so it may inherit. Source of truth: ipam specification 7, 9.4, 19.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from base.names import PeerName
from ipam.options import KnownPeer
from ipam.paxos import NodeId

_NICKS_MAX: Final = 16_384


class PeerBook:
    """See the module. Peers are 48-bit numbers; ``peer``, ``nick``, ``uid`` are ours."""

    def __init__(self, peer: int, nick: str, uid: int) -> None:
        self.peer = peer
        self._nick = nick
        self._node = NodeId(peer, uid)
        self.known: dict[int, KnownPeer] = {}
        #: Configured peers other than ourselves; None: nobody has told yet.
        self.targets: int | None = None
        self._told: dict[int, str] = {}
        #: Those of the told ones that the topology told.
        self._seen: set[int] = set()

    def set_topology(self, peers: Iterable[KnownPeer], owners: set[int]) -> bool:
        """All peers that can be reached; the names of ``owners`` of space that cannot any more
        stay known. True if there is a new one.
        """
        before = self.known
        self.known = {int(one.name): one for one in peers if int(one.name) != self.peer}
        for peer in (before.keys() - self.known.keys()) & owners:
            if before[peer].nick:
                self._told[peer] = before[peer].nick
                self._seen.add(peer)
            else:
                self._told.setdefault(peer, "")
        return not self.known.keys() <= before.keys()

    def learn(self, nicknames: Mapping[int, str]) -> bool:
        """Nicknames of a peer's gossip; true if there was news."""
        news = False
        for peer, nick in nicknames.items():
            if peer in (0, self.peer) or peer in self._seen or self._told.get(peer) == nick:
                continue
            if not nick and self._told.get(peer):
                continue  # they only know that there is such a peer
            if peer in self._told or len(self._told) < _NICKS_MAX:
                printable = nick if nick.isprintable() else ascii(nick)[1:-1]
                news |= self._told.get(peer) != printable
                self._told[peer] = printable
        return news

    def forget(self, names: Iterable[PeerName], owners: set[int]) -> None:
        """Peers have gone; those that own space keep their nicknames."""
        for name in names:
            if (peer := int(name)) not in owners:
                self._told.pop(peer, None)
                self._seen.discard(peer)

    def nick(self, peer: int) -> str:
        """What a peer is called; "" if nobody told."""
        if peer == self.peer:
            return self._nick
        found = self.known.get(peer)
        return (found.nick if found is not None else "") or self._told.get(peer, "")

    def nicknames(self) -> dict[int, str]:
        """All that take part, for our gossip."""
        return {self.peer: self._nick} | {peer: self.nick(peer) for peer in self._told}

    def named(self, nick: str, owners: Iterable[int]) -> list[int]:
        """Everybody of that nickname: reachable, owner of space, or told of."""
        everybody = {self.peer, *self.known, *self._told, *owners}
        return sorted(peer for peer in everybody if self.nick(peer) == nick)

    def reachable(self, peer: int) -> bool:
        """Whether the topology holds it."""
        return peer in self.known

    def taking_part(self, owners: Iterable[int]) -> list[int]:
        """Others in reach that allocate addresses: told of by such, or owners of space."""
        return sorted(self.known.keys() & {*self._told, *owners})

    def participants(self) -> int:
        """How many others take part in the allocation and can be reached."""
        return len(self.known.keys() & self._told.keys())

    def is_live(self, node: NodeId) -> bool:
        """Whether a participant of the election exists, in that process run."""
        found = self.known.get(node.name)
        return node == self._node or (found is not None and found.uid == node.uid)

    def heir(self, first_owner: Callable[[Callable[[int], bool]], int]) -> int:
        """Who gets our space when we leave; 0 for nobody. ``first_owner`` is the ring's choice."""
        return (
            first_owner(self.reachable)
            or next((peer for peer in sorted(self._told) if self.reachable(peer)), 0)
            or first_owner(lambda _: True)
            or next(iter(sorted(self._told)), 0)
        )
