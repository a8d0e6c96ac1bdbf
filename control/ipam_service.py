"""Address allocation as a service: the allocator, its store and its timer as one task.

Callers put their inputs in at once; nobody waits to be let in. One task then makes what they did
durable and releases what it caused:

    inputs ──▶ Allocator ──▶ change ──▶ commit (worker thread) ──▶ answers, messages
      ▲ more come in while a commit is under way, and share the next one ◀┘

So a burst of requests costs two syncs of the disk, and each caller waits for two at most. A commit
that fails (disk full, read-only) is undone: its callers are told why, and the service goes on.
Pictures for status are taken from memory and never wait.

Addresses are :class:`ipam.address.Cidr` here; the rest of control uses
:class:`control.addresses.Addresses`, see :class:`control.ipam_addresses.IpamAddresses`.

Source of truth: ipam specification 6, 9.1, 11, 20.9.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from base.clock import Clock, MonotonicClock
from base.errors import AllocationError, ConfigError, NoAddressError, WeftError
from base.log import kv
from base.names import PeerName
from control.ipam_channel import Channel
from control.ipam_ranges import OwnedTokens
from control.node import IpamView
from ipam import events
from ipam.address import Cidr, Range
from ipam.allocator import Allocator
from ipam.options import AllocatorOptions
from ipam.ring import RingError
from ipam.store import Holding, Store

log = logging.getLogger(__name__)

IDENT_LEN_MAX: Final = 1024


@dataclass(slots=True)
class _Ticket:
    """A request under way."""

    done: anyio.Event = field(default_factory=anyio.Event)
    answer: events.Answered | None = None


class IpamService:
    """One node's share in the range. Make it, give it a channel, then :meth:`run` it.

    All methods are for the loop's thread.
    """

    def __init__(
        self,
        options: AllocatorOptions,
        store: Store,
        in_use: Iterable[Holding] = (),
        on_bridge: Iterable[Holding] = (),
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Begin with what the store holds; ``in_use`` are addresses found on this host, and so are
        those ``on_bridge``, which however may be others' by the store: then that is right.

        Raises:
            ConfigError: the store cannot be read, or contradicts itself.
        """
        self._clock = clock or MonotonicClock()
        self._store = store
        self.allocator = Allocator(options, self._clock.now(), rng or random.SystemRandom())
        stored = store.load()
        try:
            self.allocator.restore(stored, in_use, self._clock.now(), on_bridge)
        except RingError as err:
            raise ConfigError(
                f"--db-prefix: the state file is damaged: {err}; move it away to start afresh"
            ) from err
        self._owned = OwnedTokens(options.name, options.universe.range, stored.entries)
        self.universe = options.universe
        self.default_subnet = options.default_subnet or options.universe
        #: Changes made durable, and changes that could not be.
        self.commits = self.failures = 0
        self._trouble: str | None = None
        #: Told at the start, and whenever they have changed, the ranges that this peer owns.
        self.on_ranges: Callable[[list[Range]], None] = _nobody
        self._channel: Channel | None = None
        self._tickets: dict[int, _Ticket] = {}
        self._ending = False
        self._number = 0
        self._work = anyio.Event()
        self._work.set()  # what restoring did is not durable yet
        #: Not the one that name lookups share, which may be slow.
        self._threads = anyio.CapacityLimiter(1)

    def attach(self, channel: Channel) -> None:
        """Send here; best done before :meth:`run`."""
        self._channel = channel

    def wake(self) -> None:
        """Inputs came to the allocator from elsewhere."""
        self._work.set()

    # --- requests --------------------------------------------------------------------------------

    async def allocate(
        self,
        ident: str,
        subnet: Cidr | None = None,
        *,
        is_container: bool = False,
        timeout_s: float | None = None,
    ) -> Cidr:
        """An address; see :meth:`control.addresses.Addresses.allocate`."""
        value = await self._ask(
            partial(
                self.allocator.allocate,
                is_container=is_container,
                deadline=self._deadline(timeout_s),
            ),
            check_ident(ident),
            subnet,
        )
        if not isinstance(value, Cidr):
            raise AssertionError("allocate answers a Cidr")
        return value

    async def claim(
        self,
        ident: str,
        cidr: Cidr,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """That very address; see :meth:`control.addresses.Addresses.claim`."""
        await self._ask(
            partial(
                self.allocator.claim,
                is_container=is_container,
                no_error_on_unknown=no_error_on_unknown,
                deadline=self._deadline(timeout_s),
            ),
            check_ident(ident),
            cidr,
        )

    async def lookup(self, ident: str, subnet: Cidr | None = None) -> tuple[Cidr, ...]:
        """What ``ident`` holds in ``subnet``, None: in the default one."""
        value = await self._ask(self.allocator.lookup, ident, subnet)
        if not isinstance(value, tuple) or isinstance(value, Cidr):
            raise AssertionError("lookup answers Cidrs")
        return value

    async def free(self, ident: str, addr: int) -> None:
        """Give one address back. Raises NotHeldError."""
        await self._ask(self.allocator.free, ident, addr)

    async def delete(self, ident: str) -> None:
        """Give back all that ``ident`` holds. Raises NotHeldError."""
        await self._ask(self.allocator.delete, ident)

    async def prime(self, timeout_s: float | None = None) -> None:
        """Wait until there is a ring, and have one made if need be."""
        await self._ask(partial(self.allocator.prime, deadline=self._deadline(timeout_s)))

    async def take_over(self, peer: str, *, force: bool = False) -> int:
        """Take a dead peer's ranges: how many addresses. Raises TakeOverRefusedError."""
        value = await self._ask(partial(self.allocator.take_over, force=force), peer)
        if not isinstance(value, int):
            raise AssertionError("take_over answers a number")
        return value

    async def shutdown(self) -> None:
        """Leave: another peer gets our ranges; everything else is cancelled from now on."""
        await self._ask(self.allocator.shutdown)

    def end(self) -> None:
        """The node stops: who waits is told so now, instead of being cut off; so is who comes."""
        self._ending = True
        for ticket in self._tickets.values():
            ticket.done.set()

    def _deadline(self, timeout_s: float | None) -> float | None:
        return None if timeout_s is None else self._clock.now() + timeout_s

    async def _ask(self, begin: Callable[..., None], *values: object) -> events.Value:
        """Put a request in and wait for its answer; leaving withdraws it."""
        self._number = number = self._number + 1
        ticket = self._tickets[number] = _Ticket()
        try:
            begin(number, *values, self._clock.now())
            self._work.set()
            if not self._ending:
                await ticket.done.wait()
        except anyio.get_cancelled_exc_class():
            # Answered in the same moment, it can't be withdrawn any more: what was granted has to
            # reach somebody who can give it back. Whoever is cancelled is so at the next step, too.
            if ticket.answer is None:
                raise
        finally:
            del self._tickets[number]
            if ticket.answer is None:
                self.allocator.cancel(number, self._clock.now())
                self._work.set()
        if ticket.answer is None:
            raise NoAddressError("the node stops; try again when it runs")
        if ticket.answer.error is not None:
            raise ticket.answer.error
        return ticket.answer.value

    # --- looking at it ---------------------------------------------------------------------------

    def view(self) -> IpamView:
        """A picture for the API; never waits."""
        return IpamView(
            status=self.allocator.status(),
            counters=dict(self.allocator.counters),
            commits=self.commits,
            failures=self.failures,
            trouble=self._trouble,
        )

    def owned(self) -> Iterator[tuple[str, tuple[Cidr, ...]]]:
        """All holdings by ident."""
        return self.allocator.owned()

    # --- the task --------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once what was restored is durable."""
        await self._settle()
        self.on_ranges(self._owned.ranges())
        task_status.started()
        while True:
            deadline = self.allocator.next_deadline()
            wait_s = math.inf if deadline is None else deadline - self._clock.now()
            with anyio.move_on_after(max(0.0, wait_s)):
                await self._work.wait()
            now = self._clock.now()
            if deadline is not None and now >= deadline:
                self.allocator.timeout(now)
            await self._settle()

    async def _settle(self) -> None:
        """Make durable what was put in, and release what it caused."""
        self._work = anyio.Event()
        change = self.allocator.take_change()
        if change is not None:
            try:
                await anyio.to_thread.run_sync(self._store.commit, change, limiter=self._threads)
            except WeftError as err:
                self._not_stored(str(err))
            except BaseException:
                # cancelled before the thread took it; nobody will be told
                self.allocator.rollback("the node stops")
                raise
            else:
                self.commits += 1
                self._trouble = None
                self.allocator.committed()
                if self._owned.apply(change):
                    self.on_ranges(self._owned.ranges())
        self._release()

    def _not_stored(self, reason: str) -> None:
        self.failures += 1
        if reason != self._trouble:
            log.error("addresses cannot be recorded", extra=kv(reason=reason))
        self._trouble = reason
        self.allocator.rollback(reason)

    def _release(self) -> None:
        sent = False
        for event in self.allocator.take_events():
            match event:
                case events.Answered():
                    if (ticket := self._tickets.get(event.request)) is not None:
                        ticket.answer = event
                        ticket.done.set()
                case events.SendUnicast(peer, data):
                    sent = True
                    self._send(peer, data)
                case events.Broadcast(source):
                    sent = True
                    if self._channel is not None:
                        self._channel.broadcast(source)
                case events.TellOutside():
                    sent = True
                    if self._channel is not None:
                        self._channel.tell_outside()
                case events.Notice(text, warning):
                    level = logging.WARNING if warning else logging.INFO
                    log.log(level, "address allocation", extra=kv(reason=text))
        if sent and self._channel is not None:
            self._channel.flush()

    def _send(self, peer: PeerName, data: bytes) -> None:
        if self._channel is None or not self._channel.send(peer, data):
            self.allocator.send_failed(peer, self._clock.now())
            self._work.set()


def _nobody(_: list[Range]) -> None:
    """Nobody wants to know."""


def check_ident(ident: str) -> str:
    """An identifier that can be recorded and shown.

    Raises:
        AllocationError: it is empty, too long, or does not print.
    """
    if not ident or len(ident) > IDENT_LEN_MAX or not ident.isprintable():
        raise AllocationError(f"no identifier of a container: {ident[:64]!r}")
    return ident
