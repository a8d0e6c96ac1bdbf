"""What this host's users ask for: addresses, that is, and what must wait.

A request is tried when it comes; if it can neither be met nor refused it waits, and is tried again
when the ring changes, an address is freed, or time passes. Order: primes, claims, allocations.

Source of truth: ipam specification 6.2 to 6.6, 11, 15.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from base.errors import (
    AllocationError,
    ClaimConflictError,
    NoAddressError,
    NotHeldError,
    OutOfBoundsError,
    RequestCancelledError,
)
from base.names import PeerName
from ipam.address import Cidr, format_address
from ipam.context import Context
from ipam.events import Answered
from ipam.exchange import ASK_S, Exchange
from ipam.holdings import IDENT_LEN_MAX, cidr_of
from ipam.outbox import Redo
from ipam.store import Holding

#: The ident of whoever has none; its addresses are held under their own text.
ANONYMOUS: Final = "_"
#: After so many tries in vain, ASK_S apart, a claim on an address of an unreachable owner fails.
_TRIES_MAX: Final = 5


@dataclass(slots=True)
class Pending:
    """A request that waits. ``cidr`` is the subnet, the address claimed, or None for a prime."""

    request: int
    ident: str
    cidr: Cidr | None
    is_container: bool
    deadline: float | None
    waits_for: str
    tries: int = 0
    #: When the next try counts: whatever happens here makes us try, and cures no absence.
    counts_from: float = -math.inf
    #: From then on a claim is recorded, whoever owns its address; None: never.
    record_at: float | None = None

    def __str__(self) -> str:
        if self.cidr is None:
            return "Prime request"
        return f"request for {self.ident} in {self.cidr}"


class Requests:
    """See the module. ``dead`` are containers noted dead, with the time."""

    def __init__(self, context: Context, exchange: Exchange) -> None:
        self._context = context
        self._exchange = exchange
        options = context.options
        self.default_subnet = options.default_subnet or options.universe
        self.primes: dict[int, Pending] = {}
        self.claims: dict[int, Pending] = {}
        self.allocates: dict[int, Pending] = {}
        self.dead: dict[str, float] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._universe = options.universe.range

    @property
    def waiting(self) -> bool:
        """Whether any request waits."""
        return bool(self.primes or self.claims or self.allocates)

    # --- allocate --------------------------------------------------------------------------------

    def allocate(self, one: Pending, now: float) -> None:
        """Meet, refuse or queue."""
        if self._refused(one):
            return
        assert one.cidr is not None
        if one.ident != ANONYMOUS and self._already(one, one.cidr):
            return
        if not one.cidr.range.overlaps(self._universe):
            self._fail(
                one,
                OutOfBoundsError(
                    f"range {one.cidr} out of bounds: {self._context.options.universe}"
                ),
            )
        elif not self._try_allocate(one, now):
            self._queue(self.allocates, one)
            if self._context.establish(now):
                self.pump(now)

    def _already(self, one: Pending, subnet: Cidr) -> bool:
        """Answer with what the ident holds in the subnet, edges included."""
        where = subnet.range
        for held in self._context.state.holdings.of(one.ident):
            if where.contains(held.addr):
                self.dead.pop(one.ident, None)
                answer = Cidr(held.addr, subnet.prefix_len)
                redo = self._redo(one, self.allocates, Answered(one.request, answer), held)
                self._context.out.answer(one.request, answer, redo=redo)
                return True
        return False

    def _try_allocate(self, one: Pending, now: float) -> bool:
        subnet = one.cidr
        assert subnet is not None
        state = self._context.state
        if not state.ring:
            one.waits_for = "the first division of the range"
            return False
        addr = state.allocate(subnet.host_range, now)
        if addr is None:
            one.waits_for = f"a free address in {subnet}"
            self._exchange.beg(subnet.range, now)
            return False
        ident = format_address(addr) if one.ident == ANONYMOUS else one.ident
        state.hold_allocated(Holding(addr, subnet.prefix_len, ident, one.is_container))
        self._context.out.answer(one.request, Cidr(addr, subnet.prefix_len), recorded=addr)
        return True

    # --- claim -----------------------------------------------------------------------------------

    def claim(self, one: Pending, now: float, *, patient: bool) -> None:
        """Meet, refuse or queue. Not ``patient``: whose owner cannot be asked, or does not answer
        for a while, is recorded, and asked for afterwards.
        """
        if self._refused(one):
            return
        assert one.cidr is not None
        if not patient:
            one.record_at = now + ASK_S
        if not self._try_claim(one, now):
            self._queue(self.claims, one)
        elif one.cidr.addr not in self._context.state.strays:
            return
        if self._context.establish(now):
            self.pump(now)

    def _try_claim(self, one: Pending, now: float) -> bool:
        cidr = one.cidr
        assert cidr is not None
        state = self._context.state
        held = state.holdings.at(cidr.addr)
        inside = self._universe.contains(cidr.addr)
        if held is not None:
            self._claim_held(one, cidr, held, inside)
            return True
        if not inside or state.is_mine(cidr.addr):
            self._record(one, cidr)
            return True
        if not state.ring:
            one.waits_for = "the first division of the range"
            asked = False
        else:
            owner = state.ring.owner(cidr.addr)
            one.waits_for = self._owned_by(cidr, owner)
            if now >= one.counts_from:
                one.tries += 1
                one.counts_from = now + ASK_S
            asked = self._exchange.ask_owner(cidr.addr, owner, now)
        if one.record_at is not None and (not asked or now >= one.record_at):
            self._record(one, cidr)
            return True
        if not asked and one.tries > _TRIES_MAX:
            self._fail(one, ClaimConflictError(f"{one.waits_for} - it cannot be reached"))
            return True
        return False

    def _owned_by(self, cidr: Cidr, owner: int) -> str:
        nick = self._context.peers.nick(owner)
        who = f"{PeerName.from_int(owner)}{f' ({nick})' if nick else ''}"  # as clients know it
        return f"address {cidr} is owned by other peer {who}"

    def _claim_held(self, one: Pending, cidr: Cidr, held: Holding, inside: bool) -> None:
        out = self._context.out
        if one.ident in (held.ident, ANONYMOUS):
            self.dead.pop(one.ident, None)
            out.answer(one.request, redo=self._redo(one, self.claims, Answered(one.request), held))
        elif not inside and held.ident in self.dead:
            self._context.state.rename(
                Holding(cidr.addr, cidr.prefix_len, one.ident, one.is_container)
            )
            out.answer(one.request)
        elif not inside:
            self._fail(one, ClaimConflictError(f"address {cidr} already in use by {held.ident}"))
        elif held.ident == format_address(cidr.addr):
            self._fail(one, ClaimConflictError(f"address {cidr} already in use"))
        else:
            self._fail(one, ClaimConflictError(f"address {cidr} is already owned by {held.ident}"))

    def _record(self, one: Pending, cidr: Cidr) -> None:
        ident = format_address(cidr.addr) if one.ident == ANONYMOUS else one.ident
        self._context.state.hold(Holding(*cidr, ident, one.is_container))
        self.dead.pop(one.ident, None)
        self._context.out.answer(one.request, recorded=cidr.addr)

    def denied(self, addr: int, source: int) -> None:
        """The owner refuses an address: whoever waits for it fails."""
        for one in list(self.claims.values()):
            if one.cidr is not None and one.cidr.addr == addr:
                del self.claims[one.request]
                text = f"{self._owned_by(one.cidr, source)} - it is in use there"
                self._fail(one, ClaimConflictError(text))

    # --- the others ------------------------------------------------------------------------------

    def prime(self, one: Pending, now: float) -> None:
        """Answer when there is a ring, or none of ours any more."""
        if self._context.stopped or self._try_prime(one):
            if self._context.stopped:
                self._context.out.answer(one.request)
            return
        self._queue(self.primes, one)
        if self._context.establish(now):
            self.pump(now)

    def _try_prime(self, one: Pending) -> bool:
        one.waits_for = "the first division of the range"
        if not self._context.state.ring:
            return False
        redo = self._redo(one, self.primes, Answered(one.request))
        self._context.out.answer(one.request, redo=redo)
        return True

    def lookup(self, request: int, ident: str, subnet: Cidr | None) -> None:
        """What is held; the default subnet's edges do not count, as in Weave."""
        where = (subnet or self.default_subnet).host_range

        def found() -> Answered:
            held = self._context.state.holdings.of(ident)
            return Answered(
                request, tuple(cidr_of(one) for one in held if where.contains(one.addr))
            )

        self._context.out.answer(request, found().value, redo=found)

    def free(self, request: int, ident: str, addr: int, now: float) -> None:
        """One address."""
        state = self._context.state
        held = state.holdings.at(addr)
        if held is None or held.ident != ident:
            text = f"Free: address {format_address(addr)} not found for {ident}"
            self._context.out.fail(request, NotHeldError(text))
            return
        state.release(addr, now)
        self._context.out.answer(request)
        self.pump(now)

    def delete(self, request: int, ident: str, now: float) -> None:
        """All of them."""
        if not self.release_all(ident, now):
            text = f"Delete: no addresses for {ident}"
            self._context.out.fail(request, NotHeldError(text))
            return
        self._context.out.answer(request)
        self.pump(now)

    def release_all(self, ident: str, now: float) -> int:
        """Free what an ident holds: how many."""
        held = self._context.state.holdings.of(ident)
        for one in held:
            self._context.state.release(one.addr, now)
        self.dead.pop(ident, None)
        return len(held)

    # --- the queues ------------------------------------------------------------------------------

    def _queue(self, queue: dict[int, Pending], one: Pending) -> None:
        queue[one.request] = one
        if one.deadline is not None:
            heapq.heappush(self._deadlines, (one.deadline, one.request))

    def _redo(
        self, one: Pending, queue: dict[int, Pending], answer: Answered, held: Holding | None = None
    ) -> Redo:
        """After an undoing: the same answer while it is still right, else the request waits."""

        def redo() -> Answered | None:
            state = self._context.state
            if state.ring if held is None else state.holdings.at(held.addr) == held:
                return answer
            self._queue(queue, one)
            return None

        return redo

    def pump(self, now: float) -> None:
        """Try everything that waits, once. A subnet that gave nothing is not tried again."""
        if not self._context.state.ring:
            return
        for one in list(self.primes.values()):
            if self._try_prime(one):
                self.primes.pop(one.request, None)
        for one in list(self.claims.values()):
            if self._try_claim(one, now):
                self.claims.pop(one.request, None)
        empty: set[Cidr | None] = set()
        for one in list(self.allocates.values()):
            assert one.cidr is not None
            if (one.ident != ANONYMOUS and self._already(one, one.cidr)) or (
                one.cidr not in empty and self._try_allocate(one, now)
            ):
                self.allocates.pop(one.request, None)
            else:
                empty.add(one.cidr)

    def ask_for_strays(self, now: float, limit: int = 64) -> None:
        """Ask owners for addresses that are in use here and not ours, some at a time."""
        state = self._context.state
        if not state.ring:
            if state.strays:
                self._context.establish(now)
            return
        for addr in list(state.strays)[:limit]:
            # to the end of the line, so that all have their turn
            state.strays[addr] = state.strays.pop(addr)
            self._exchange.ask_owner(addr, state.ring.owner(addr), now)

    def cancel(self, request: int, now: float) -> None:
        """The caller has left."""
        for queue in (self.primes, self.claims, self.allocates):
            if (one := queue.pop(request, None)) is not None:
                self._fail(one, _cancelled(one))
                return
        error = RequestCancelledError("request cancelled")
        addr = self._context.out.cancel(request, error)
        if addr is not None:
            self._context.state.release(addr, now)

    def cancel_where(self, matches: Callable[[Pending], bool], *, primes: bool = False) -> None:
        """Cancel what waits and matches; primes only on demand."""
        queues = [self.claims, self.allocates] + ([self.primes] if primes else [])
        for queue in queues:
            for one in [one for one in queue.values() if matches(one)]:
                del queue[one.request]
                self._fail(one, _cancelled(one))

    def next_deadline(self) -> float | None:
        """When the first request that waits gives up."""
        while self._deadlines and not self._find(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> None:
        """Answer those whose time has passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heapq.heappop(self._deadlines)
            one = self._find(request)
            if one is not None and one.deadline is not None and one.deadline <= now:
                for queue in (self.primes, self.claims, self.allocates):
                    queue.pop(request, None)
                self._fail(one, NoAddressError(f"gave up waiting for {one.waits_for}"))

    def _find(self, request: int) -> Pending | None:
        return self.allocates.get(request) or self.claims.get(request) or self.primes.get(request)

    def _refused(self, one: Pending) -> bool:
        if self._context.stopped:
            self._fail(one, _cancelled(one))
            return True
        if len(one.ident) * 4 > IDENT_LEN_MAX:
            self._fail(one, AllocationError("the container's name is too long"))
            return True
        return False

    def _fail(self, one: Pending, error: AllocationError) -> None:
        self._context.out.fail(one.request, error)


def _cancelled(one: Pending) -> RequestCancelledError:
    return RequestCancelledError(f"{one} cancelled")
