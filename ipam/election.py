"""When the first division is made, and by whom.

Nothing happens until somebody needs an address. Then electors propose, again and again at random
intervals that grow, so that two do not outbid each other for ever; an observer asks the others to.
As many nodes decide as the user said, ourselves counted, or as the configured targets suggest. A
quorum of one beside targets is how clusters split (specification 20.1: Kubernetes start scripts
count peers without the node itself): it waits until a target votes or some time has passed. A
guess counts all participants that are in sight, too, for a while: the first node of a cluster has
no targets, and would decide alone while the others agree without it. A guess of a node that found
addresses in use waits for others even where there are no targets: it has lived before, they will
come, and the first is likely to know a division.

Source of truth: ipam specification 5, 20.1, 20.2.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from ipam.options import AllocatorOptions, Mode
from ipam.paxos import Claims, NodeId, Paxos, seeds_of
from ipam.peers import PeerBook

RETRY_S: Final = 5.0
_RETRY_FACTOR_MAX: Final = 6.0
#: How long a guessed majority is one of all in sight; observers among these never vote.
IN_SIGHT_S: Final = 10.0
SOON_S: Final = 1.0


class Election:
    """See the module. It only knows claims; who calls makes the ring and the broadcasts."""

    def __init__(
        self, options: AllocatorOptions, peers: PeerBook, now: float, rng: random.Random
    ) -> None:
        self._options = options
        self._peers = peers
        self._rng = rng
        self._alone_from = now + options.alone_grace_s
        #: Addresses in use tell that the range was divided before.
        self.lived_before = False
        # None: not begun
        self._in_sight_until: float | None = None
        self._round = 0
        self.elector = options.mode is not Mode.OBSERVER
        self.paxos = Paxos(NodeId(peers.peer, options.uid), 0, peers.is_live)
        #: Somebody waits for a ring.
        self.awaiting = False
        #: When to act next.
        self.next_at: float | None = None

    def _too_early(self, now: float) -> bool:
        """Whether how many decide is not known, or likely to be wrong."""
        peers = self._peers
        if self._options.expected > 1:
            return False
        if peers.targets is None:
            return True
        return self._expects_others(now) and not peers.targets and not peers.known

    def _expects_others(self, now: float) -> bool:
        return self.lived_before and not self._options.expected and now < self._alone_from

    def _others_that_vote(self, others: int) -> int:
        """Those of so many that may yet vote, some time after we asked: if anybody is in sight, all
        but those in sight that have not, being observers.
        """
        in_sight = self._peers.known.keys()
        if not in_sight:
            return 0
        voters = {node.name for node in self.paxos.counted()} & in_sight
        return max(len(voters), others - len(in_sight - voters))

    @property
    def others_expected(self) -> int:
        """How many other peers there should be, by what the user said."""
        expected = self._options.expected
        return expected - 1 if expected > 1 else self._peers.targets or 0

    def _quorum(self, now: float) -> int:
        """How many nodes decide."""
        expected = self._options.expected
        if expected > 1:
            return expected // 2 + 1
        others = self._peers.targets or 0
        if self._expects_others(now):
            others = max(others, len(self._peers.known))
        if expected == 1 and now >= self._alone_from:
            others = self._others_that_vote(others)
        if expected == 0 and self._in_sight_until is not None and now < self._in_sight_until:
            others = max(others, self._peers.participants())
        return (others + 1) // 2 + 1

    def establish(self, now: float) -> bool:
        """Somebody needs a ring; true if our state is to be broadcast now."""
        if self.awaiting:
            return False
        self.awaiting = True
        return self._act(now)

    def peer_came(self, now: float) -> None:
        """Somebody new is in sight: whoever would decide alone asks for a vote first."""
        if self._options.expected == 1:
            self._alone_from = max(self._alone_from, now + IN_SIGHT_S)
            if self.next_at is not None:
                self.next_at = min(self.next_at, now + SOON_S)

    def targets_changed(self, now: float) -> None:
        """Count again, unless votes were cast by the old count, and act if that was waited for."""
        if self.awaiting and self.elector and not self.paxos.anything_accepted:
            if self._in_sight_until is None:
                self.next_at = now
            elif not self._too_early(now):
                self.paxos.quorum = self._quorum(now)

    def due(self, now: float) -> bool:
        """Act if it is time; true if our state is to be broadcast."""
        if not self.awaiting or self.next_at is None or now < self.next_at:
            return False
        return self._act(now)

    def _act(self, now: float) -> bool:
        self._round += 1
        wait = RETRY_S * self._rng.uniform(1.0, min(1.0 + self._round / 2, _RETRY_FACTOR_MAX))
        self.next_at = now + wait
        if not self.elector:
            self.next_at = now + RETRY_S
            return True
        if self._too_early(now):
            self.next_at = None if self._peers.targets is None else self._alone_from
            return False
        if self._in_sight_until is None:
            self._in_sight_until = now + IN_SIGHT_S
        if self.paxos.quorum == 0 or not self.paxos.anything_accepted:
            self.paxos.quorum = self._quorum(now)
        if now < self._alone_from:
            self.next_at = min(self.next_at, self._alone_from)
        if now < self._in_sight_until:
            self.next_at = min(self.next_at, self._in_sight_until)
        self.paxos.propose()
        return True

    def learn(self, claims: Mapping[NodeId, Claims]) -> bool:
        """Others' claims; true if there was news, which our gossip passes on from now on."""
        return self.elector and self.paxos.update(claims)

    def think(self) -> bool:
        """After news; true if our own claims changed, so that they are to be broadcast."""
        return self.paxos.think()

    def topology_changed(self) -> bool:
        """Claims of who is counted only now may have come before; true if ours changed by them,
        so that they are to be broadcast.
        """
        return self.elector and bool(self.paxos.known) and self.paxos.think()

    def seeds(self) -> tuple[int, ...] | None:
        """Among whom the range is divided, once that is decided."""
        found = self.paxos.consensus()
        return None if found is None or not found[1] else seeds_of(found[1])

    def over(self) -> None:
        """There is a ring."""
        self.awaiting = False
        self.next_at = None

    def undone(self, now: float) -> None:
        """The ring could not be stored: try again."""
        self.awaiting = True
        self.next_at = now + RETRY_S
