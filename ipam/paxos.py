"""Single-value Paxos by gossip, for one question: who divides the range among whom.

Every elector proposes, accepts and learns. What a node knows is a map from node to that node's
claims; merging such maps is all the communication there is. A node is a peer name and the random
number of its process run, so that a restarted process, which has forgotten its promises, is another
acceptor. Nothing here is stored.

Source of truth: ipam specification 5; vectors ``ipam_paxos.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple


class NodeId(NamedTuple):
    """``name`` is the 48-bit peer name."""

    name: int
    uid: int


class ProposalId(NamedTuple):
    """Ordered by round, then by proposer; round 0 is none."""

    round: int
    proposer: NodeId


NO_NODE: Final = NodeId(0, 0)
NO_PROPOSAL: Final = ProposalId(0, NO_NODE)


class Claims(NamedTuple):
    """A node's word: the proposal it has promised to, the last it accepted, and its value.

    ``value`` are peer names in any order, ``origin`` the proposal they were first made in.
    """

    promise: ProposalId = NO_PROPOSAL
    accepted: ProposalId = NO_PROPOSAL
    value: tuple[int, ...] = ()
    origin: ProposalId = NO_PROPOSAL


NO_CLAIMS: Final = Claims()


def seeds_of(value: Iterable[int]) -> tuple[int, ...]:
    """The agreed value as seeds: sorted, a peer that restarted only once."""
    return tuple(sorted(set(value)))


class Paxos:
    """One participant. ``quorum`` 0: not known yet, so nothing is ever decided.

    ``is_live`` says whether a node may be counted: one that nobody has seen may be invented.
    """

    def __init__(
        self, node: NodeId, quorum: int = 0, is_live: Callable[[NodeId], bool] | None = None
    ) -> None:
        self.node = node
        self.quorum = quorum
        self.known: dict[NodeId, Claims] = {}
        self._is_live = is_live or (lambda _: True)

    def counted(self) -> dict[NodeId, Claims]:
        """What is known of those that may be counted."""
        return {
            node: claims
            for node, claims in self.known.items()
            if node == self.node or self._is_live(node)
        }

    @property
    def anything_accepted(self) -> bool:
        """Whether any node is known to have accepted a value."""
        return any(claims.accepted.round for claims in self.known.values())

    def propose(self) -> None:
        """Start a round that is higher than any known."""
        rounds = [
            max(claims.promise.round, claims.accepted.round) for claims in self.known.values()
        ]
        mine = self.known.get(self.node, NO_CLAIMS)
        promise = ProposalId(1 + max(rounds, default=0), self.node)
        self.known[self.node] = mine._replace(promise=promise)
        if self.quorum == 1:
            self.think()

    def update(self, received: Mapping[NodeId, Claims]) -> bool:
        """Learn; true if there was anything new."""
        changed = False
        for node, theirs in received.items():
            mine = self.known.get(node)
            if mine is None:
                self.known[node] = theirs
                changed = True
                continue
            better = mine
            if theirs.promise > better.promise:
                better = better._replace(promise=theirs.promise)
            if theirs.accepted > better.accepted:
                better = better._replace(
                    accepted=theirs.accepted, value=theirs.value, origin=theirs.origin
                )
            if better is not mine:
                self.known[node] = better
                changed = True
        return changed

    def think(self) -> bool:
        """Promise and accept what there is to; true if our own claims changed."""
        before = self.known.get(self.node, NO_CLAIMS)
        counted = self.counted()
        promise = max(claims.promise for claims in [before, *counted.values()])
        mine = before._replace(promise=promise)
        followers = [claims for claims in counted.values() if claims.promise == promise]
        if promise.proposer == self.node and len(followers) >= self.quorum:
            best = max(followers, key=lambda claims: claims.accepted)
            if best.accepted.round:
                value, origin = best.value, best.origin
            else:
                value, origin = tuple(node.name for node in counted), promise
            mine = Claims(promise, promise, value, origin)
        for claims in counted.values():
            if claims.accepted == promise:
                mine = Claims(promise, promise, claims.value, claims.origin)
                break
        if (mine.promise, mine.accepted, mine.origin) == (
            before.promise,
            before.accepted,
            before.origin,
        ):
            return False  # and no claims of ours where there were none: a voter more to all
        self.known[self.node] = mine
        return True

    def consensus(self) -> tuple[ProposalId, tuple[int, ...]] | None:
        """Origin and value that a quorum has accepted; None if there is none, as far as we know."""
        if not self.quorum:
            return None
        votes: dict[ProposalId, int] = {}
        for claims in self.counted().values():
            if claims.accepted.round:
                votes[claims.origin] = count = votes.get(claims.origin, 0) + 1
                if count >= self.quorum:
                    return claims.origin, claims.value
        return None
