"""Peers that die, containers that die, and leaving.

Source of truth: ipam specification 6.2, 9.3 to 9.5.
"""

from __future__ import annotations

from collections.abc import Collection

from base.errors import TakeOverRefusedError
from base.names import PeerName
from ipam.context import Context
from ipam.requests import Requests


class Lifecycle:
    """See the module."""

    def __init__(self, context: Context, requests: Requests) -> None:
        self._context = context
        self._requests = requests

    # --- containers ------------------------------------------------------------------------------

    def started(self, ident: str) -> None:
        """Alive after all."""
        self._requests.dead.pop(ident, None)

    def died(self, ident: str, now: float) -> None:
        """Cancel what it waits for; its addresses stay a while, it may be restarting."""
        self._requests.cancel_where(lambda one: one.ident == ident)
        if self._is_container(ident):
            self._requests.dead.setdefault(ident, now)

    def destroyed(self, ident: str, now: float) -> None:
        """It cannot come back."""
        self._requests.cancel_where(lambda one: one.ident == ident)
        if self._is_container(ident) and self._requests.release_all(ident, now):
            self._requests.pump(now)

    def prune(self, running: Collection[str], now: float) -> None:
        """Containers that are not running hold nothing."""
        alive = set(running)
        gone = {
            one.ident
            for one in self._context.state.holdings
            if one.is_container and one.ident not in alive
        }
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
        """Make a dead peer's ranges ours."""
        context = self._context
        state, peers, out = context.state, context.peers, context.out
        named = peers.named(text, state.ring.peers())
        if len(named) > 1:
            names = ", ".join(str(PeerName.from_int(peer)) for peer in named)
            refusal = f"several peers are called {text}: {names}; give the name"
            out.fail(request, TakeOverRefusedError(refusal))
            return
        peer = named[0] if named else _parse(text)
        if peer is None or peer == state.peer or peer not in state.ring.peers():
            out.answer(request, 0)
            return
        if peers.reachable(peer) and not force:
            refusal = f"peer {text} is reachable: its addresses are in use"
            out.fail(request, TakeOverRefusedError(refusal))
            return
        gained = state.take_over(peer)
        peers.forget([PeerName.from_int(peer)], set())
        context.told_changed()
        out.broadcast()
        out.answer(request, gained)
        self._requests.pump(now)

    def shutdown(self, request: int, now: float) -> None:
        """Hand everything to an heir and stop."""
        context = self._context
        context.stopped = True
        self._requests.cancel_where(lambda _: True, primes=True)
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


def _parse(text: str) -> int | None:
    try:
        return int(PeerName.parse(text))
    except ValueError:
        return None
