"""What the parts of the attachments' service share: records, locks, addresses, worker threads.

Used by :mod:`control.attachments` and its parts only. All methods are for the loop's thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from base.errors import NotHeldError, WeftError
from base.log import kv
from cni.attach import Attacher
from cni.requests import Interface
from control.addresses import Addresses
from control.attachment_store import Attachment, AttachmentStore
from control.attachment_tally import Durations
from control.host.files import HostFiles
from control.host.ports import Port, Ports

log = logging.getLogger(__name__)

T = TypeVar("T")
Key = tuple[str, str]

CONCURRENCY: Final = 8
_EVERYWHERE: Final = IPv4Network("0.0.0.0/0")


@dataclass(slots=True)
class _Busy:
    """One container being worked on: ``users`` hold or want the lock."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class AttachmentBook:
    """``records`` are what is attached, by key; ``pending`` what is being made or added to.

    ``waiting`` are scopes of those that wait for addresses. ``addresses`` None: nothing is
    allocated here. ``files`` are where paths of namespaces are looked up.
    """

    def __init__(
        self, store: AttachmentStore, attacher: Attacher, files: HostFiles, *, legacy_names: bool
    ) -> None:
        self.store = store
        self.attacher = attacher
        self.files = files
        self.legacy_names = legacy_names
        self.addresses: Addresses | None = None
        self.records: dict[Key, Attachment] = {}
        self.pending: dict[Key, Attachment] = {}
        self.waiting: dict[Key, anyio.CancelScope] = {}
        self.begun = anyio.Event()
        self.attaching = Durations()
        self.detaching = Durations()
        self.watchers: list[Callable[[Ports], None]] = []
        #: Whether somebody else has addresses allocated under an ident.
        self.taken_elsewhere: Callable[[str], bool] = lambda _: False
        self._busy: dict[str, _Busy] = {}
        self._limiter = anyio.CapacityLimiter(CONCURRENCY)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run what blocks in a worker thread, a few of them at a time; to its end in any case."""
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)

    @contextlib.asynccontextmanager
    async def alone_with(self, container: str) -> AsyncIterator[None]:
        """Nobody else works on this container meanwhile."""
        await self.begun.wait()
        busy = self._busy.setdefault(container, _Busy())
        busy.users += 1
        try:
            async with busy.lock:
                yield
        finally:
            busy.users -= 1
            if not busy.users:
                del self._busy[container]

    def busy(self, container: str) -> bool:
        """Whether somebody works on this container, or is about to."""
        return container in self._busy

    def ports(self) -> dict[str, Port]:
        """The containers by the host ends of their links."""
        return {
            record.host_ifname: Port(
                record.mac,
                tuple(each for each in record.addresses if isinstance(each, IPv4Interface)),
            )
            for record in self.records.values()
        }

    def tell(self) -> None:
        """Tell those that watch."""
        ports = self.ports()
        for watcher in self.watchers:
            watcher(ports)

    # --- addresses -------------------------------------------------------------------------------

    def new_ident(self, container: str, ifname: str) -> str:
        """Under what the addresses of another interface of a container are allocated."""
        known = (*self.records.values(), *self.pending.values())
        taken = self.taken_elsewhere(container) or any(
            record.ident == container for record in known
        )
        return f"{container}:{ifname}" if taken else container

    async def held(self, ident: str) -> tuple[Interface, ...]:
        """What is held under an ident, addresses outside of the range included."""
        if self.addresses is None:
            return ()
        return tuple(await self.addresses.lookup(ident, _EVERYWHERE))

    async def held_besides(self, ident: str, record: Attachment | None) -> tuple[Interface, ...]:
        """What is allocated under an ident and is not of its attachment, finished or not."""
        if record is not None and record.under_way is not None:
            return record.under_way
        ours = {each.ip for each in record.addresses} if record is not None else set()
        return tuple(each for each in await self.held(ident) if each.ip not in ours)

    async def release(self, ident: str, address: Interface) -> None:
        """Give an address back that may not be held at all."""
        if self.addresses is not None and isinstance(address, IPv4Interface):
            with contextlib.suppress(NotHeldError):
                await self.addresses.free(ident, address.ip)


@contextlib.contextmanager
def logged(message: str) -> Iterator[None]:
    """Undoing goes on after what it cannot do: the first error is the one to be told."""
    try:
        yield
    except WeftError as err:
        log.error(message, extra=kv(err=err))
