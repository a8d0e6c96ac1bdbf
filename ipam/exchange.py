"""Space between peers: asking for it, giving it, and hearing who has how much.

One request is in flight for a subnet, to one peer, until it is answered or some seconds have
passed; so a burst of allocations does not cut the ring into pieces. Whoever asks us gets at most
half of what is free, and each peer only so often: one that asks in a loop would drain us.

Source of truth: ipam specification 6.4 to 6.6, 7, 8, 19, 20.11.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from base.names import PeerName, format_peer
from ipam import wire
from ipam.address import Range
from ipam.context import Context
from ipam.merge import MergeConflictError, merge
from ipam.ring import RingError
from ipam.wire import GossipState, RingState

#: How long an answer is waited for, and how long a refusal counts.
ASK_S: Final = 5.0
#: Requests that a peer may make at once, and the seconds until it may make one more.
BURST: Final = 64
BURST_SINGLE: Final = 1024
REFILL_S: Final = 0.5
REFILL_SINGLE_S: Final = 0.02
#: How long it is remembered that the operator was told: that nobody has free addresses, and that a
#: peer's ring is refused. The latter outlasts the longest pause between two connections.
TOLD_S: Final = 60.0
REFUSAL_S: Final = 900.0
_REFUSALS_MAX: Final = 16


@dataclass(slots=True)
class _Ask:
    peer: int
    until: float


class Exchange:
    """See the module."""

    def __init__(self, context: Context, counters: Counter[str]) -> None:
        self._context = context
        self._counters = counters
        self._asks: dict[Range, _Ask] = {}
        self._refused: dict[tuple[Range, int], float] = {}
        #: Addresses that their owner refused to give us, by owner.
        self.denied: dict[int, int] = {}
        self._buckets: dict[tuple[int, bool], float] = {}
        self._told_no_donor: dict[Range, float] = {}
        #: Why rings of peers are refused, and until when that is worth telling.
        self.refusals: dict[str, float] = {}

    # --- asking ----------------------------------------------------------------------------------

    def beg(self, where: Range, now: float) -> None:
        """See to it that somebody is asked for free addresses inside ``where``."""
        if self._in_flight(where, now):
            return
        context = self._context
        for peer in context.state.ring.donors(where, context.rng.random):
            if context.peers.reachable(peer) and self._refused.get((where, peer), 0.0) <= now:
                self._ask(where, peer, now)
                return
        if self._told_no_donor.get(where, 0.0) <= now:
            self._told_no_donor[where] = now + TOLD_S
            text = f"no reachable peer has free addresses in {where.as_cidr_text()}"
            context.out.notice(text, warning=True)

    def ask_owner(self, addr: int, owner: int, now: float) -> bool:
        """See to it that the owner is asked for one address; False when it cannot be reached."""
        where = Range(addr, addr + 1)
        if self._in_flight(where, now):
            return True
        if not self._context.peers.reachable(owner):
            return False
        self._ask(where, owner, now)
        return True

    def inquire(self, peer: int) -> None:
        """Have a peer tell its ring."""
        peers = self._context.peers
        data = wire.encode_inquiry(
            self._context.options.unix_now, {peers.peer: peers.nick(peers.peer)}
        )
        self._context.out.send(PeerName.from_int(peer), data)

    def _in_flight(self, where: Range, now: float) -> bool:
        ask = self._asks.get(where)
        return ask is not None and ask.until > now

    def _ask(self, where: Range, peer: int, now: float) -> None:
        self._asks[where] = _Ask(peer, now + ASK_S)
        self._context.out.send(PeerName.from_int(peer), wire.encode_space_request(where))

    def send_failed(self, peer: int, now: float) -> None:
        """Nothing reaches that peer now: whoever waits for it asks somebody else."""
        for where, ask in list(self._asks.items()):
            if ask.peer == peer:
                del self._asks[where]
                self._refused[where, peer] = now + ASK_S

    def forget_asks(self) -> None:
        """What was asked has not been sent."""
        self._asks.clear()

    def expire(self, now: float) -> None:
        """Drop what no longer matters."""
        self._asks = {where: ask for where, ask in self._asks.items() if ask.until > now}
        self._refused = {key: until for key, until in self._refused.items() if until > now}
        self._buckets = {key: full for key, full in self._buckets.items() if full > now}
        self._told_no_donor = {w: until for w, until in self._told_no_donor.items() if until > now}
        self.denied = {a: p for a, p in self.denied.items() if a in self._context.state.strays}

    def on_denied(self, source: int, where: Range, now: float) -> bool:
        """``source`` refuses; true if it is an address that was asked from it alone.

        Weave fails every claim inside the range, also those that wait for other owners.
        """
        ask = self._asks.get(where)
        if ask is None or ask.peer != source:
            return False
        del self._asks[where]
        self._refused[where, source] = now + ASK_S
        if where.size == 1 and where.start in self._context.state.strays:
            self.denied[where.start] = source
        return where.size == 1

    # --- giving ----------------------------------------------------------------------------------

    def on_request(self, source: int, where: Range, now: float) -> None:
        """A peer asks us for free addresses; also after we have left, when it may not know yet who
        inherited, or we may have been given some that crossed our word.
        """
        context = self._context
        state, out = context.state, context.out
        if not state.ring or source == state.peer:
            return
        name = PeerName.from_int(source)
        universe = state.universe
        asked = Range(max(where.start, universe.start), min(where.end, universe.end))
        chunk = None
        if asked.start < asked.end:
            if asked.size == 1 and state.ring.owner(asked.start) == source:
                out.send_state(name)  # it asked twice
                return
            if self._may_ask(source, asked.size == 1, now):
                chunk = state.chunk_for(source, asked)
        if chunk is None:
            out.send(name, wire.encode_denial(where))
        else:
            state.grant(chunk, source)
            out.broadcast()
        out.send_state(name)

    def _may_ask(self, source: int, single: bool, now: float) -> bool:
        """Take a drop from the peer's bucket, which is full again at the time noted.

        All that are not in sight share one: who makes up names gains nothing by it, and does not
        fill our memory. Honest ones are so for a moment, when they come.
        """
        key = (source if self._context.peers.reachable(source) else 0, single)
        burst, refill = (BURST_SINGLE, REFILL_SINGLE_S) if single else (BURST, REFILL_S)
        full_at = max(self._buckets.get(key, now), now)
        if full_at - now > (burst - 1) * refill:
            self._counters["space requests beyond the rate"] += 1
            return False
        self._buckets[key] = full_at + refill
        return True

    # --- hearing ---------------------------------------------------------------------------------

    def on_state(self, data: bytes, source: PeerName | None, now: float) -> bool:
        """A peer's state, by gossip (no source), broadcast or unicast; true if the ring changed.

        Raises:
            RemoteProtocolError: it is damaged, or contradicts what we own.
        """
        context = self._context
        state = wire.decode_state(data)
        if context.peers.learn(state.nicknames):
            context.told_changed()
        if state.ring is not None:
            return self._merge(state.ring, now)
        if context.state.ring:
            if source is not None and int(source) != context.state.peer:
                context.out.send_state(source)
            return False
        return self._elect(state, source, now)

    def _merge(self, theirs: RingState, now: float) -> bool:
        state = self._context.state
        used = state.space.first_used
        try:
            outcome = merge(
                state.ring,
                theirs.universe,
                theirs.entries,
                theirs.seeds,
                used,
                self._context.peers.nick,
            )
        except MergeConflictError as conflict:
            self._counters["conflicting rings"] += 1
            if not conflict.taken_over:
                self._refuse(conflict, now)
                raise
            # the cluster has moved on: what is in use here is asked back, address by address
            self._context.out.notice(str(conflict), warning=True)
            outcome = conflict.outcome
        except RingError as err:
            self._counters["rings refused"] += 1
            self._refuse(err, now)
            raise
        if not outcome.changed and outcome.seeds == state.ring.seeds:
            return False
        state.take_outcome(outcome)
        if outcome.lost:
            self._tell_lost(outcome.lost)
        for where in list(self._asks):
            if any(where.overlaps(gained) for gained in outcome.gained):
                del self._asks[where]
        self._context.election.over()
        return True

    def _tell_lost(self, lost: list[Range]) -> None:
        """Somebody has taken over what was ours, as they may."""
        context = self._context
        owner = context.state.ring.owner(lost[0].start)
        who = format_peer(PeerName.from_int(owner), context.peers.nick(owner))
        more = f" and {len(lost) - 1} more ranges" if len(lost) > 1 else ""
        context.out.notice(f"no longer ours, now of {who}: {lost[0].as_cidr_text()}{more}")

    def _refuse(self, err: RingError, now: float) -> None:
        """Tell, but not with every connection that breaks on it."""
        text = f"a peer's ring is refused: {err}"
        if text not in self.refusals:
            if len(self.refusals) >= _REFUSALS_MAX:
                del self.refusals[min(self.refusals, key=self.refusals.__getitem__)]
            self._context.out.notice(text, warning=True)
        self.refusals[text] = now + REFUSAL_S

    def next_forgetting(self) -> float | None:
        """When a refusal is to be forgotten."""
        return min(self.refusals.values(), default=None)

    def forget_refusals(self, now: float) -> None:
        """Those that have not come again."""
        self.refusals = {text: until for text, until in self.refusals.items() if until > now}

    def _elect(self, state: GossipState, source: PeerName | None, now: float) -> bool:
        """Neither has a ring."""
        context = self._context
        election = context.election
        if state.paxos is not None:
            if election.learn(state.paxos):
                # also what changes no mind here: a vote may reach others by our gossip alone
                context.told_changed()
                if election.think():
                    context.out.broadcast()
            return context.divide_if_decided()
        if source is not None and election.elector:
            return context.establish(now)
        return False
