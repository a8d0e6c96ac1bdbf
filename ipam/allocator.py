"""The allocator of one node, without sockets, clocks and files.

In go requests, messages of other peers, the topology and the time; out come events
(:mod:`ipam.events`), changes to make durable (:mod:`ipam.store`) and the next deadline.

Whoever asks chooses the request's number (any int not in use) and gets exactly one
:class:`ipam.events.Answered` for it. ``now`` is monotonic seconds. ``deadline`` of a request is in
the same seconds: when it passes the answer is NoAddressError with what was waited for.

Source of truth: ipam specification 6 to 9, 20.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from base.errors import LocalProtocolError
from base.names import PeerName
from ipam import wire
from ipam.address import Cidr
from ipam.context import Context
from ipam.election import Election
from ipam.events import Event
from ipam.exchange import Exchange
from ipam.holdings import cidr_of
from ipam.lifecycle import Lifecycle
from ipam.options import AllocatorOptions, KnownPeer, Mode
from ipam.outbox import Outbox
from ipam.outside import Outside
from ipam.peers import PeerBook
from ipam.report import make_status
from ipam.requests import Pending, Requests
from ipam.state import LocalState
from ipam.status import IpamStatus
from ipam.store import Change, Holding, Stored
from ipam.wire import GossipState, RingState

#: How often waiting requests are tried again, whatever happens.
TICK_S: Final = 5.0


class Allocator:
    """See the module. ``rng`` gives the order of donors and the back-off of elections."""

    def __init__(self, options: AllocatorOptions, now: float, rng: random.Random) -> None:
        self.options = options
        #: Messages ignored and merges refused, by reason.
        self.counters: Counter[str] = Counter()
        self._now = self._started = now
        peers = PeerBook(int(options.name), options.nick, options.uid)
        universe = options.universe.range
        self._out = Outbox(lambda: wire.encode_ring_update(self.encode_state()))
        self._context = Context(
            options,
            rng,
            LocalState(options.name, universe, options.reuse_delay_s),
            peers,
            Election(options, peers, now, rng),
            self._out,
            self._told_changed,
        )
        self._exchange = Exchange(self._context, self.counters)
        #: What users chose outside the range, here and elsewhere.
        self.outside = Outside(
            self._context.state, peers, self._out, rng, self.counters, options.uid
        )
        self._requests = Requests(self._context, self._exchange)
        self._lifecycle = Lifecycle(self._context, self._requests, self._exchange)
        self._encoded: bytes | None = None
        self._tick_at = now + TICK_S

    # --- start -----------------------------------------------------------------------------------

    def restore(
        self,
        stored: Stored,
        in_use: Iterable[Holding],
        now: float,
        on_bridge: Iterable[Holding] = (),
    ) -> None:
        """Begin with what the store holds. Called once, before anything else.

        ``in_use``: addresses found on this host (attached containers, the bridge's own), whether
        stored or not. They are claimed before anything is allocated; those that another peer owns
        are asked from it and never given away meanwhile. ``on_bridge`` the same where the store
        knows of no holder. State of another name or another range is dropped, with a Notice; so is
        a ring without entries.
        """
        state = self._context.state
        notices = [state.load(stored), *map(state.adopt, in_use)]
        notices += [state.adopt(one) for one in on_bridge if state.holdings.at(one.addr) is None]
        for notice in notices:
            if notice is not None:
                self._out.notice(notice, warning=True)
        self._context.election.lived_before = bool(state.strays)
        if self.options.mode is Mode.SEED or state.strays:
            self._context.establish(now)
        self._requests.ask_for_strays(now)

    def prune(self, running: Collection[str], now: float) -> None:
        """Free what is held by containers that are not among ``running``; also good hourly.

        Containers with requests under way, or answered since the list was made, belong in it.
        """
        self._lifecycle.prune(running, now)

    # --- requests --------------------------------------------------------------------------------

    def allocate(
        self,
        request: int,
        ident: str,
        subnet: Cidr | None,
        now: float,
        *,
        is_container: bool = False,
        deadline: float | None = None,
    ) -> None:
        """An address of ``subnet`` (None: the default one) for ``ident``; asked again, the same.

        The ident ``_`` gets a new one each time, held under the address's text. Answers a Cidr with
        the subnet's prefix length, OutOfBoundsError, NoAddressError, RequestCancelledError.
        """
        waits = "a free address"
        cidr = subnet or self._requests.default_subnet
        one = Pending(request, ident, cidr, is_container, deadline, waits)
        self._requests.allocate(one, now)

    def claim(
        self,
        request: int,
        ident: str,
        cidr: Cidr,
        now: float,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
        deadline: float | None = None,
    ) -> None:
        """That very address for ``ident``; also one outside the range, known on this host only.

        With ``no_error_on_unknown`` it is recorded, and claimed on, when its owner is not known,
        cannot be reached or does not answer; one that does may refuse. Answers None,
        ClaimConflictError, NoAddressError, RequestCancelledError.
        """
        self._now = now
        one = Pending(request, ident, cidr, is_container, deadline, "the address")
        self._requests.claim(one, now, patient=not no_error_on_unknown)

    def prime(self, request: int, now: float, *, deadline: float | None = None) -> None:
        """Answers None once there is a ring, starting the election if need be."""
        self._requests.prime(Pending(request, "", None, False, deadline, "the ring"), now)

    def lookup(self, request: int, ident: str, subnet: Cidr | None, now: float) -> None:
        """What ``ident`` holds inside ``subnet`` (None: the default subnet): answers Cidrs."""
        self._now = now
        self._requests.lookup(request, ident, subnet)

    def free(self, request: int, ident: str, addr: int, now: float) -> None:
        """Give one address back: answers None or NotHeldError."""
        self._now = now
        self._requests.free(request, ident, addr, now)

    def delete(self, request: int, ident: str, now: float) -> None:
        """Give all of an ident's addresses back: answers None or NotHeldError."""
        self._now = now
        self._requests.delete(request, ident, now)

    def cancel(self, request: int, now: float) -> None:
        """The caller has left: RequestCancelledError, nothing recorded.

        What an unreleased answer has recorded is undone. Unknown and finished ones are ignored.
        """
        self._now = now
        if not self._lifecycle.cancel(request):
            self._requests.cancel(request, now)

    def take_over(self, request: int, peer: str, now: float, *, force: bool = False) -> None:
        """Take a dead peer's ranges (``rmpeer``): answers the addresses gained, 0 if none such.

        Peers in reach are asked for their rings first, which takes a moment, or some seconds if one
        is silent. ``peer`` is a name or nickname. TakeOverRefusedError for a reachable one, unless
        ``force``, and for a nickname that several bear.
        """
        self._lifecycle.take_over(request, peer, now, force=force)

    def shutdown(self, request: int, now: float) -> None:
        """Leave: an heir gets our ranges; answers None, all else is cancelled from now on."""
        self._lifecycle.shutdown(request, now)

    # --- containers ------------------------------------------------------------------------------

    def container_started(self, ident: str, now: float) -> None:
        """It lives (again): its addresses stay."""
        self._now = now
        self._lifecycle.started(ident)

    def container_died(self, ident: str, now: float) -> None:
        """Its requests are cancelled; its addresses are freed unless it starts again soon."""
        self._lifecycle.died(ident, now)

    def container_destroyed(self, ident: str, now: float) -> None:
        """Its addresses are freed."""
        self._lifecycle.destroyed(ident, now)

    # --- the mesh --------------------------------------------------------------------------------

    def set_topology(self, peers: Iterable[KnownPeer], now: float) -> None:
        """All reachable peers, whenever they change; ourselves may be among them."""
        if self._context.peers.set_topology(peers, self._context.state.ring.peers()):
            self.outside.peer_came(now)
            self._context.election.peer_came(now)
        self._told_changed()
        self._lifecycle.topology_changed(now)
        if not self._context.state.ring:
            self._context.election.targets_changed(now)
            if self._context.election.topology_changed():
                self._out.broadcast()
            self._divided(self._context.divide_if_decided(), now)
        self._retry(now)

    def set_targets(self, count: int, now: float) -> None:
        """How many peers the user told us to connect to, those known to be ourselves left out."""
        self._context.peers.targets = count
        self._context.election.targets_changed(now)

    def peers_gone(self, names: Iterable[PeerName], now: float) -> None:
        """Peers left the topology: their nicknames are forgotten unless they own space."""
        self._now = now
        self._context.peers.forget(names, self._context.state.ring.peers())
        self._told_changed()

    def send_failed(self, peer: PeerName, now: float) -> None:
        """A SendUnicast found no way: somebody else is asked, or it is tried again later."""
        self._exchange.send_failed(int(peer), now)
        self._lifecycle.heard(int(peer), now)

    def on_unicast(self, source: PeerName, data: bytes, now: float) -> None:
        """A message for us alone. Raises RemoteProtocolError."""
        kind = data[0] if data else -1
        if kind == wire.RING_UPDATE:
            try:
                self._divided(self._exchange.on_state(data[1:], source, now), now)
            finally:
                self._lifecycle.heard(int(source), now)
        elif kind == wire.SPACE_REQUEST:
            self._exchange.on_request(int(source), wire.decode_range(data[1:]), now)
        elif kind == wire.SPACE_DENIED:
            where = wire.decode_range(data[1:])
            if self._exchange.on_denied(int(source), where, now):
                self._requests.denied(where.start, int(source))
            self._requests.pump(now)
        else:
            # Weave crashes or hangs; a later protocol may have more kinds
            self.counters["unicasts of unknown kind" if data else "empty unicasts"] += 1

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> None:
        """A broadcast that started at ``source``; ``Broadcast(source)`` passes it on later.

        Raises:
            RemoteProtocolError: it is damaged, or contradicts what we own.
        """
        self._divided(self._exchange.on_state(data, source, now), now)
        self._out.broadcast(source)

    def on_gossip(self, data: bytes, now: float) -> None:
        """A neighbour's state. Raises RemoteProtocolError as for a broadcast."""
        self._divided(self._exchange.on_state(data, None, now), now)

    def encode_state(self) -> bytes:
        """Our state as gossip carries it, as of the last commit. Cached, so cheap to repeat."""
        if self._encoded is None:
            self._encoded = wire.encode_state(self._gossip_state())
        return self._encoded

    # --- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When :meth:`timeout` is to be called at the latest; None: nothing waits."""
        moments = [
            self._requests.next_deadline(),
            self._lifecycle.next_burial(),
            self._lifecycle.next_deadline(),
            self.outside.next_deadline(),
            self._exchange.next_forgetting(),
        ]
        if not self._context.stopped:
            moments.append(self._context.election.next_at)
            if self._requests.waiting or self._context.state.strays:
                moments.append(self._tick_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def timeout(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        self._requests.expire(now)
        self._lifecycle.bury(now)
        self._lifecycle.expire(now)
        self.outside.timeout(now)
        self._exchange.forget_refusals(now)
        if self._context.stopped:
            return
        if not self._context.state.ring and self._context.election.due(now):
            self._told_changed()
            self._out.broadcast()
            self._divided(self._context.divide_if_decided(), now)
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._exchange.expire(now)
            self._retry(now)

    # --- what comes out --------------------------------------------------------------------------

    def take_change(self) -> Change | None:
        """What the inputs since the last call have to make durable; None when there is nothing.

        After a change, :meth:`committed` or :meth:`rollback` must be called before the next
        take_change. After None their events are released at once.

        Raises:
            LocalProtocolError: a change is still under way.
        """
        if self._out.is_sealed:
            raise LocalProtocolError("a change is still under way")
        self.outside.poll(self._now)
        change = self._context.state.seal()
        self._out.seal()
        if change is None:
            self._out.release()
        return change

    def committed(self) -> None:
        """The change taken last is durable: its events are released."""
        if self._context.state.commit():
            self._told_changed()
        self._out.release()

    def rollback(self, reason: str) -> None:
        """It is not: undo it, and what came after it.

        Requests that had been answered by it, and would have been right, get NotStoredError;
        pending ones stay pending. ``reason`` goes into the text.
        """
        context = self._context
        had_ring = bool(context.state.ring)
        context.state.rollback()
        self._exchange.forget_asks()
        self.outside.rolled_back(self._now)
        if had_ring and not context.state.ring:
            context.election.undone(self._now)
        self._out.rollback(reason)

    def take_events(self) -> list[Event]:
        """Released events, oldest first."""
        return self._out.take()

    # --- looking at it ---------------------------------------------------------------------------

    def status(self) -> IpamStatus:
        """Everything for status and report."""
        return make_status(self._context, self._requests, self._exchange, self.outside)

    def owned(self) -> Iterator[tuple[str, tuple[Cidr, ...]]]:
        """All holdings by ident (``GET /ip``), idents and their addresses oldest first."""
        for ident, held in self._context.state.holdings.by_ident():
            yield ident, tuple(map(cidr_of, held))

    # --- inside ----------------------------------------------------------------------------------

    def _told_changed(self) -> None:
        self._encoded = None

    def _gossip_state(self) -> GossipState:
        context = self._context
        shown = context.state.shown
        ring = paxos = None
        if shown.entries:
            ring = RingState(context.state.universe, context.state.peer, shown.entries, shown.seeds)
        elif context.election.elector:
            paxos = context.election.paxos.known
        wall = self.options.unix_now + int(self._now - self._started)
        return GossipState(wall, context.peers.nicknames(), paxos, ring)

    def _divided(self, news: bool, now: float) -> None:
        """The ring has changed, or not: what waits may be met now."""
        self._now = now
        if news:
            self._retry(now)

    def _retry(self, now: float) -> None:
        """Try again all that waits."""
        self._now = now
        if self._context.stopped:
            return
        if not self._context.state.ring and self._requests.waiting:
            self._context.establish(now)
        self._requests.ask_for_strays(now)
        self._requests.pump(now)
