"""One attachment on its way: what was asked for, what has been done so far, and undoing it.

Source of truth: node specification 6.1, cni specification 4.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio

from base.errors import ConfigError, NoAddressError, RequestCancelledError, WeftError
from cni.attach import Attached, Wanted
from cni.links import find_link
from cni.names import DEFAULT_IFNAME, check_container_id, check_ifname
from cni.netns import Netns
from cni.requests import Interface, Route
from control.attachment_book import AttachmentBook, logged
from control.attachment_store import Attachment
from control.host.address_spec import AddressSpec, FixedAddress, check_length

ADDRESSES_MAX: Final = 64
ROUTES_MAX: Final = 256
NO_IPAM: Final = "IP address allocation must be enabled to use 'net:'"
_UNDO_TIMEOUT_S: Final = 60.0
_NOTHING: Final = Attachment("", "", "", "", "")


@dataclass(slots=True, frozen=True)
class AttachRequest:
    """What a user or a runtime wants. ``netns`` stays the caller's, open until the answer.

    ``addresses`` in the order in which they are wanted; ``fixed`` are further ones that are not
    ours to allocate. ``timeout_s`` bounds the wait for addresses, None does not. The others are as
    in :class:`control.attachment_store.Attachment` and :class:`cni.attach.Wanted`.
    """

    container: str
    netns: Netns
    ifname: str = DEFAULT_IFNAME
    bridge: str = "weave"
    addresses: tuple[AddressSpec, ...] = ()
    fixed: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    mtu: int | None = None
    mac: str | None = None
    hairpin: bool = True
    multicast_route: bool = True
    network: str = ""
    label: str = ""
    memo: str = ""
    timeout_s: float | None = None

    def check(self) -> None:
        """Raise ConfigError when it can't be carried out, whatever the node is like."""
        check_container_id(self.container)
        check_ifname(self.ifname)
        check_ifname(self.bridge)
        if not 1 <= len(self.addresses) + len(self.fixed) <= ADDRESSES_MAX:
            raise ConfigError(f"attach: give 1 to {ADDRESSES_MAX} addresses")
        if len(self.routes) > ROUTES_MAX:
            raise ConfigError(f"attach: more than {ROUTES_MAX} routes")


class Attaching:
    """Carries out one request, alone with its container."""

    def __init__(self, book: AttachmentBook, request: AttachRequest) -> None:
        self._book = book
        self._request = request
        self._key = (request.container, request.ifname)
        self._before = book.records.get(self._key)
        # a container that was started again has another namespace, and none of its old interfaces
        known = self._before is not None and self._before.netns_id == request.netns.ident
        self._known = self._before if known else None
        self._had: tuple[Interface, ...] = ()
        self._obtained: list[Interface] = []
        self._made: Attached | None = None

    async def run(self) -> Attachment:
        """The record, which is on the disk; see :meth:`control.attachments.Attachments.attach`."""
        book, request = self._book, self._request
        begun = await self._draft()
        book.pending[self._key] = begun
        try:
            await book.in_thread(partial(book.store.put, begun))
            await self._obtain(begun.ident)
            kept = begun.addresses
            addresses = (*kept, *(each for each in self._obtained if each not in kept))
            wanted = replace(self._wanted(addresses), label=begun.label)
            self._made = await book.in_thread(partial(book.attacher.attach, request.netns, wanted))
            record = replace(begun, addresses=addresses, mac=self._made.mac, mtu=self._made.mtu)
            surplus = self._surplus(record)
            if not surplus:
                record = record.finished()
            await book.in_thread(partial(book.store.put, record))
        except BaseException:
            with anyio.move_on_after(_UNDO_TIMEOUT_S, shield=True):
                await self._undo(begun)
            raise
        finally:
            del book.pending[self._key]
        if surplus:
            with anyio.CancelScope(shield=True):
                record = await self._give_back(record, surplus)
        book.records[self._key] = record
        book.tell()
        return record

    async def _draft(self) -> Attachment:
        """The record of what is under way; whoever only adds need not know what the maker said."""
        book, request = self._book, self._request
        before, known = self._before, self._known
        kept = _NOTHING if known is None else known
        ident = book.new_ident(*self._key) if before is None else before.ident
        self._had = await book.held(ident)
        return Attachment(
            container=request.container,
            ifname=request.ifname,
            ident=ident,
            bridge=request.bridge,
            host_ifname=self._wanted(()).host_ifname,
            network=request.network or kept.network,
            mac=kept.mac,
            hairpin=request.hairpin,
            multicast_route=request.multicast_route or kept.multicast_route,
            addresses=kept.addresses,
            routes=tuple(dict.fromkeys((*kept.routes, *request.routes))),
            netns=request.netns.path,
            netns_id=request.netns.ident,
            label=request.label or kept.label,
            memo=request.memo or kept.memo,
            made_at_s=time.time() if known is None else known.made_at_s,
            under_way=await book.held_besides(ident, before),
        )

    async def _obtain(self, ident: str) -> None:
        """Addresses, in the order wanted; ended by a detach of the same interface."""
        waiting = self._book.waiting
        with anyio.CancelScope() as scope:
            waiting[self._key] = scope
            try:
                for spec in self._request.addresses:
                    await self._obtain_one(ident, spec)
            finally:
                del waiting[self._key]
        if scope.cancelled_caught:
            raise RequestCancelledError("the container was detached meanwhile")
        self._obtained += [each for each in self._request.fixed if each not in self._obtained]

    async def _obtain_one(self, ident: str, spec: AddressSpec) -> None:
        addresses, timeout_s = self._book.addresses, self._request.timeout_s
        if isinstance(spec, FixedAddress):
            found = spec.address
            there = () if self._known is None else self._known.addresses
            check_length(found, (*there, *self._obtained))
            if addresses is not None:
                with _bounded(timeout_s, found):
                    await addresses.claim(ident, found)
        elif addresses is None:
            raise ConfigError(NO_IPAM)
        else:
            found = await addresses.allocate(ident, spec.subnet, timeout_s=timeout_s)
        if found not in self._obtained:
            self._obtained.append(found)

    def _wanted(self, addresses: tuple[Interface, ...]) -> Wanted:
        request = self._request
        return Wanted(
            container=request.container,
            addresses=addresses,
            ifname=request.ifname,
            bridge=request.bridge,
            routes=request.routes,
            mtu=request.mtu,
            mac=request.mac,
            hairpin=request.hairpin,
            multicast_route=request.multicast_route,
            legacy_name=self._book.legacy_names,
            label=request.label,
        )

    def _surplus(self, record: Attachment) -> list[Interface]:
        """What was held for the attachment of before and is not wanted any more."""
        kept = {each.ip for each in (*record.addresses, *(record.under_way or ()))}
        return [each for each in self._had if each.ip not in kept]

    async def _give_back(self, record: Attachment, surplus: list[Interface]) -> Attachment:
        """Release; what the disk does not take is left to whoever finishes the record.

        That is the next attach or detach of this interface, or the next start.
        """
        book = self._book
        done = False
        with logged("address not released"):
            for each in surplus:
                await book.release(record.ident, each)
            await book.in_thread(partial(book.store.put, record.finished()))
            done = True
        return record.finished() if done else record

    async def _undo(self, begun: Attachment) -> None:
        book, request, made = self._book, self._request, self._made
        if made is not None:
            with logged("attachment not undone"):
                if made.created:
                    undo = partial(book.attacher.detach, request.container, request.ifname)
                    await book.in_thread(undo)
                else:
                    take = book.attacher.remove_addresses
                    await book.in_thread(partial(take, request.netns, request.ifname, made.added))
        if self._before is not None and self._known is None:
            with logged("interface of before not put back"):
                await book.in_thread(partial(self._put_back, self._before))
        held_before = {each.ip for each in self._had}
        for each in self._obtained:
            if each.ip not in held_before:
                with logged("address not released"):
                    await book.release(begun.ident, each)
        with logged("record left as under way"):
            if self._before is not None:
                await book.in_thread(partial(book.store.put, self._before))
            else:
                await book.in_thread(partial(book.store.delete, begun))

    def _put_back(self, before: Attachment) -> None:
        """The namespace of before, if it is still there, has its interface as it had it."""
        book = self._book
        if find_link(book.attacher.host, before.host_ifname) is not None:
            return
        with contextlib.ExitStack() as held:
            try:
                netns = held.enter_context(book.files.netns(before.netns))
            except WeftError:
                return  # its container is gone; the addresses wait for the next attempt
            if netns.ident == before.netns_id:
                legacy = book.legacy_names
                wanted = replace(before.wanted(), mac=before.mac or None, legacy_name=legacy)
                book.attacher.attach(netns, wanted)


@contextlib.contextmanager
def _bounded(timeout_s: float | None, address: Interface) -> Iterator[None]:
    """A time limit on a claim.

    Raises:
        NoAddressError: it is over.
    """
    try:
        with anyio.fail_after(timeout_s):
            yield
    except TimeoutError as err:
        raise NoAddressError(f"{address} was not granted within {timeout_s:g} s") from err
