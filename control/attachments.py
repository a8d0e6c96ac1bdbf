"""Containers attached to this node: addresses, interfaces and records, all of it or nothing.

For each interface of a container, one after another:

    attach   record "under way" → addresses → pair (worker thread) → record → answer
    detach   pair or addresses taken away → addresses released → record deleted → answer

A crash between any two arrows is put right at the next start (:mod:`control.attachment_start`).
What fails is undone before it is told. Waiting for an address holds up nobody else: a detach of the
same interface ends the wait. A few containers are worked on at once.

The first interface of a container has its addresses under the container's id, further ones under
``<id>:<interface>``.

Source of truth: node specification 6, cni specification 4, 5, 8.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import anyio

from base.errors import ConfigError, NetlinkError, NotHeldError, WeftError
from cni.attach import Attacher
from cni.names import DEFAULT_IFNAME, check_container_id, check_ifname, host_ifname
from cni.netns import Netns
from cni.requests import Interface
from control.addresses import Addresses
from control.attaching import NO_IPAM, Attaching, AttachRequest
from control.attachment_book import AttachmentBook, logged
from control.attachment_store import Attachment, AttachmentStore
from control.attachment_tally import AttachmentsView
from control.host.address_spec import AddressSpec, FixedAddress
from control.host.files import HostFiles
from control.host.ports import Ports


class Attachments:
    """The attachments of a node. They are served after :meth:`begin`; for the loop's thread."""

    def __init__(
        self,
        store: AttachmentStore,
        attacher: Attacher,
        files: HostFiles | None = None,
        *,
        legacy_names: bool = False,
    ) -> None:
        self.book = AttachmentBook(store, attacher, files or HostFiles(), legacy_names=legacy_names)

    # --- for the node ----------------------------------------------------------------------------

    def begin(self, records: Iterable[Attachment], addresses: Addresses | None) -> None:
        """Serve from now on, knowing these; ``addresses`` None: nothing is allocated here."""
        self.book.addresses = addresses
        self.book.records = {record.key: record for record in records}
        self.book.begun.set()
        self.book.tell()

    def watch(self, watcher: Callable[[Ports], None]) -> None:
        """Have ``watcher`` called with every host's end, now and at each change."""
        self.book.watchers.append(watcher)
        if self.book.begun.is_set():
            watcher(self.book.ports())

    @property
    def records(self) -> list[Attachment]:
        """What is attached, in the order of its making."""
        return list(self.book.records.values())

    def get(self, container: str, ifname: str) -> Attachment | None:
        """One attachment."""
        return self.book.records.get((container, ifname))

    def view(self) -> AttachmentsView:
        """A picture for metrics."""
        book = self.book
        return AttachmentsView(len(book.records), len(book.pending), book.attaching, book.detaching)

    # --- attach ----------------------------------------------------------------------------------

    async def attach(self, request: AttachRequest) -> Attachment:
        """Attach, or add to an attachment what is missing; on the disk when this returns.

        Raises:
            ConfigError: the request is wrong, ``net:`` without allocation, or the disk is full.
            AllocationError: an address cannot be had.
            NetnsError, BridgeMissingError, InterfaceExistsError, NetlinkError: see
                :meth:`cni.attach.Attacher.attach`.
        """
        with self.book.attaching.timed():
            request.check()
            async with self.book.alone_with(request.container):
                return await Attaching(self.book, request).run()

    def requested(self, record: Attachment, specs: Iterable[AddressSpec]) -> list[Interface]:
        """Those addresses of an attachment that ``specs`` ask for, in the order of ``specs``."""
        found = [
            each
            for spec in specs
            for each in record.addresses
            if _matches(each, spec, self.book.addresses)
        ]
        return list(dict.fromkeys(found))

    # --- detach ----------------------------------------------------------------------------------

    async def detach(
        self,
        container: str,
        ifname: str = DEFAULT_IFNAME,
        specs: Sequence[AddressSpec] = (),
        *,
        everything: bool = False,
        netns: Netns | None = None,
    ) -> list[Interface]:
        """Take addresses away, and with the last one the interface; the addresses.

        Without ``specs`` those of the default subnet, or, where nothing is allocated or
        ``everything`` is said, all. ``netns``, the caller's, is needed only where the one of the
        record cannot be opened and addresses remain. Never waits for other peers.

        Raises:
            ConfigError: a name is wrong, or the disk is full.
            NetlinkError, NetnsGoneError: the kernel refused, the namespace is not to be entered.
        """
        check_container_id(container)
        check_ifname(ifname)
        if (waiting := self.book.waiting.get((container, ifname))) is not None:
            waiting.cancel()
        with self.book.detaching.timed():
            return await self._detach(container, ifname, specs, everything=everything, netns=netns)

    async def _detach(
        self,
        container: str,
        ifname: str,
        specs: Sequence[AddressSpec],
        *,
        everything: bool,
        netns: Netns | None,
    ) -> list[Interface]:
        async with self.book.alone_with(container):
            record = self.book.records.get((container, ifname))
            if record is None:
                record = self._foreign(container, ifname)
            # quick, and whoever asked may leave: half of it would only wait for the next start
            gone: list[Interface] = []
            with anyio.CancelScope(shield=True):
                if record is not None:
                    gone = self._matching(record, specs, everything)
                    if len(gone) == len(record.addresses):
                        await self._remove(record, netns)
                    elif gone:
                        await self._reduce(record, gone, netns)
                elif everything:
                    await self._remove_unknown(container, ifname, netns)
        return gone

    def _foreign(self, container: str, ifname: str) -> Attachment | None:
        """What Weave Net has made for this container."""
        name = host_ifname(container, ifname, legacy=True)
        found = self.book.records.get((name, ifname))
        return found if found is not None and found.foreign else None

    def _matching(
        self, record: Attachment, specs: Sequence[AddressSpec], everything: bool
    ) -> list[Interface]:
        addresses = self.book.addresses
        if everything or (not specs and addresses is None):
            return list(record.addresses)
        found: list[Interface] = []
        for each in record.addresses:
            if not specs and addresses is not None:
                wanted = each.network == addresses.default_subnet
            else:
                wanted = any(_matches(each, spec, addresses) for spec in specs)
            if wanted:
                found.append(each)
        return found

    async def _remove_unknown(self, container: str, ifname: str, netns: Netns | None) -> None:
        """What has no record: made by Weave Net, or its record was lost."""
        await self.book.in_thread(
            partial(self.book.attacher.detach, container, ifname, netns=netns)
        )
        others = any(record.container == container for record in self.book.records.values())
        if not others and self.book.addresses is not None:
            with contextlib.suppress(NotHeldError):
                await self.book.addresses.delete(container)

    async def _remove(self, record: Attachment, netns: Netns | None) -> None:
        attacher = self.book.attacher
        remove = partial(
            attacher.detach,
            record.container,
            record.ifname,
            netns=netns,
            host_name=record.host_ifname,
        )
        if record.foreign:
            remove = partial(attacher.detach_unmarked, record.host_ifname)
        await self.book.in_thread(remove)
        ours = record.addresses
        if record.under_way is not None:  # more was to be released than could be
            besides = {each.ip for each in record.under_way}
            held = await self.book.held(record.ident)
            ours = (*ours, *(each for each in held if each.ip not in besides))
        for each in dict.fromkeys(ours):
            await self.book.release(record.ident, each)
        await self.book.in_thread(partial(self.book.store.delete, record))
        del self.book.records[record.key]
        self.book.tell()

    async def _reduce(self, record: Attachment, gone: list[Interface], netns: Netns | None) -> None:
        kept = tuple(each for each in record.addresses if each not in gone)
        under_way = replace(record, under_way=await self.book.held_besides(record.ident, record))
        await self.book.in_thread(partial(self.book.store.put, under_way))
        try:
            await self.book.in_thread(partial(self._take_off, record, gone, netns))
            used = {each.ip for each in kept}  # of nested subnets, one address may be in both
            for each in gone:
                if each.ip not in used:
                    await self.book.release(record.ident, each)
        except WeftError:
            with logged("record left as under way"):
                await self.book.in_thread(partial(self.book.store.put, record))
            raise
        reduced = replace(record, addresses=kept)
        await self.book.in_thread(partial(self.book.store.put, reduced))
        self.book.records[record.key] = reduced
        self.book.tell()

    def _take_off(self, record: Attachment, gone: list[Interface], netns: Netns | None) -> None:
        if netns is not None:
            self.book.attacher.remove_addresses(netns, record.ifname, gone)
            return
        with self.book.files.netns(record.netns) as found:
            if found.ident != record.netns_id:
                raise NetlinkError(
                    "enter", record.netns, "it is not the container's namespace any more"
                )
            self.book.attacher.remove_addresses(found, record.ifname, gone)


def _matches(address: Interface, spec: AddressSpec, addresses: Addresses | None) -> bool:
    if isinstance(spec, FixedAddress):
        return address == spec.address
    subnet = spec.subnet
    if subnet is None:
        if addresses is None:
            raise ConfigError(NO_IPAM)
        subnet = addresses.default_subnet
    return address.network == subnet
