"""Peers that die, containers that die, and leaving.

Who takes a dead peer's ranges over asks others first what they know: somebody may have done so
already, or been given a part by the peer before it died. Two who know nothing of each other would
both own what only one can (#3190, #3632).

Source of truth: ipam specification 6.2, 9.3 to 9.5, 20.5.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from base.errors import RequestCancelledError, TakeOverRefusedError
from base.names import PeerName
from ipam.context import Context
from ipam.exchange import Exchange
from ipam.requests import Requests

#: How long answers of others are waited for before a take-over, and how many are asked: any one
#: will have heard of most there is to know, and each answers with a whole ring.
INQUIRY_S: Final = 3.0
INQUIRY_PEERS: Final = 16


@dataclass(slots=True)
class _TakeOver:
    """One that waits for the answers of the peers ``silent``."""

    text: str
    force: bool
    until: float
    silent: set[int]


class Lifecycle:
    """See the module."""

    def __init__(self, context: Context, requests: Requests, exchange: Exchange) -> None:
        self._context = context
        self._requests = requests
        self._exchange = exchange
        self._take_overs: dict[int, _TakeOver] = {}

    # --- containers ------------------------------------------------------------------------------

    def started(self, ident: str) -> None:
        """Alive after all."""
        self._requests.dead.pop(ident, None)

    def died(self, ident: str, now: float) -> None:
        """Cancel what it waits for; its addresses stay a while, it may be restarting."""
        self._requests.cancel_where(lambda one: one.ident == ident)
        if self._is_container(ident):
            self._requests.dead[ident] = now

    def destroyed(self, ident: str, now: float) -> None:
        """It cannot come back."""
        self._requests.cancel_where(lambda one: one.ident == ident)
        if self._is_container(ident) and self._requests.release_all(ident, now):
            self._requests.pump(now)

    def prune(self, running: Collection[str], now: float) -> None:
        """Containers that are not running hold nothing."""
        alive = set(running)
        # in order of age, not of hashes: it is the order in which addresses are used again
        gone = dict.fromkeys(
            one.ident
            for one in self._context.state.holdings
            if one.is_container and one.ident not in alive
        )
        for ident in gone:
            self._requests.release_all(ident, now)
        if gone:
            self._requests.pump(now)

    def bury(self, now: float) -> None:
        """Free the addresses of those that have been dead for long enough."""
        grace = self._context.options.dead_grace_s
        gone = [one for one, since in self._requests.dead.items() if since + grace <= now]
        for ident in gone:
            self._requests.release_all(ident, now)
        if gone:
            self._requests.pump(now)

    def next_burial(self) -> float | None:
        """When that is."""
        first = min(self._requests.dead.values(), default=None)
        return None if first is None else first + self._context.options.dead_grace_s

    def _is_container(self, ident: str) -> bool:
        return any(one.is_container for one in self._context.state.holdings.of(ident))

    # --- peers -----------------------------------------------------------------------------------

    def take_over(self, request: int, text: str, now: float, *, force: bool) -> None:
        """Make a dead peer's ranges ours, once those in sight have told their rings."""
        context = self._context
        if self._mortal(request, text, force=force) is None:
            return
        if context.stopped:
            context.out.fail(request, _left())
            return
        asked = context.peers.taking_part(context.state.ring.peers())
        if len(asked) > INQUIRY_PEERS:
            asked = context.rng.sample(asked, INQUIRY_PEERS)
        one = _TakeOver(text, force, now + INQUIRY_S, set(asked))
        self._take_overs[request] = one
        for other in asked:
            self._exchange.inquire(other)
        self._take_over_if_told(request, one, now)

    def _mortal(self, request: int, text: str, *, force: bool) -> int | None:
        """Which peer is meant; None if there is nothing to take, which then has been answered."""
        state, peers, out = self._context.state, self._context.peers, self._context.out
        named = peers.named(text, state.ring.peers())
        if len(named) > 1:
            names = ", ".join(str(PeerName.from_int(peer)) for peer in named)
            refusal = f"several peers are called {text}: {names}; give the name"
            out.fail(request, TakeOverRefusedError(refusal))
            return None
        peer = named[0] if named else _parse(text)
        if peer is None or peer == state.peer or peer not in state.ring.peers():
            out.answer(request, 0)
            return None
        if peers.reachable(peer) and not force:
            refusal = f"peer {text} is reachable: its addresses are in use"
            out.fail(request, TakeOverRefusedError(refusal))
            return None
        return peer

    def heard(self, peer: int, now: float) -> None:
        """It has told its ring, or cannot."""
        for request, one in list(self._take_overs.items()):
            one.silent.discard(peer)
            self._take_over_if_told(request, one, now)

    def topology_changed(self, now: float) -> None:
        """Whoever is gone will not answer."""
        for request, one in list(self._take_overs.items()):
            one.silent = {peer for peer in one.silent if self._context.peers.reachable(peer)}
            self._take_over_if_told(request, one, now)

    def expire(self, now: float) -> None:
        """Wait no longer for those that are silent."""
        for request, one in list(self._take_overs.items()):
            self._take_over_if_told(request, one, now)

    def cancel(self, request: int) -> bool:
        """The caller of a take-over has left; true if there was one."""
        if self._take_overs.pop(request, None) is None:
            return False
        self._context.out.fail(request, RequestCancelledError("take-over cancelled"))
        return True

    def next_deadline(self) -> float | None:
        """When a take-over waits no longer."""
        return min((one.until for one in self._take_overs.values()), default=None)

    def _take_over_if_told(self, request: int, one: _TakeOver, now: float) -> None:
        if one.silent and now < one.until:
            return
        del self._take_overs[request]
        # what was told may have changed who is meant, and what there is to take
        peer = self._mortal(request, one.text, force=one.force)
        if peer is None:
            return
        context = self._context
        gained = context.state.take_over(peer)
        if not context.peers.reachable(peer):
            context.peers.forget([PeerName.from_int(peer)], set())
        context.told_changed()
        context.out.broadcast()
        context.out.answer(request, gained)
        self._requests.pump(now)

    def shutdown(self, request: int, now: float) -> None:
        """Hand everything to an heir and stop."""
        context = self._context
        context.stopped = True
        self._requests.cancel_where(lambda _: True, primes=True)
        for waiting in self._take_overs:
            context.out.fail(waiting, _left())
        self._take_overs.clear()
        state = context.state
        if state.ring.owned(state.peer):
            heir = context.peers.heir(state.ring.heir)
            if heir:
                state.hand_over(heir, now)
                context.out.broadcast()
                if context.peers.reachable(heir):
                    context.out.send_state(PeerName.from_int(heir))
        context.election.over()
        context.out.answer(request)


def _left() -> TakeOverRefusedError:
    return TakeOverRefusedError("this peer has left, it takes over nobody")


def _parse(text: str) -> int | None:
    try:
        return int(PeerName.parse(text))
    except ValueError:
        return None
