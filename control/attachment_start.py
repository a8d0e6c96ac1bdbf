"""At the start: what the records say against what the kernel has, and the difference put right.

The kernel is right. An attachment exists if the host's end of its pair does, by name and alias; its
other end goes with the container's namespace, so there is nothing to ask a runtime and no path to
open. In order:

1. :func:`prepare`, before addresses are allocated: what is there, and which addresses are in use.
   A pair that was being made when we died, and never finished, is removed.
2. :func:`settle`, once addresses can be allocated: those of containers that are gone are released,
   those found in use claimed; then the records are written.

An attachment without a record (the state file was lost) is taken over with the addresses that its
interface has: they are in use, whoever knows of it. So is one of Weave Net, whose host's end says
nothing of itself, on a node that was replaced in place.

Source of truth: node specification 6.4 and 13 (rows 310, 320, 370).
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from base.errors import AllocationError, NetlinkError
from base.log import kv
from cni import requests as req
from cni.attach import Attacher
from cni.inventory import HostEnd, container_end, host_ends
from cni.names import HOST_PREFIX
from cni.requests import Interface
from cni.rtnetlink import RouteSocket
from cni.verify import mend_host_end
from control.addresses import Addresses
from control.attachment_store import Attachment, AttachmentStore
from control.attachments import Attachments

log = logging.getLogger(__name__)

#: What Weave Net makes of the id of a runtime's container.
_LEGACY_NAME: Final = re.compile(f"{HOST_PREFIX}[0-9a-f]{{7}}")


@dataclass(slots=True)
class Found:
    """What the start has to go on with.

    ``alive`` are attachments as they are, ``gone`` records of what is no more, ``adopted`` keys of
    those without a record until now.
    """

    alive: list[Attachment] = field(default_factory=list)
    gone: list[Attachment] = field(default_factory=list)
    adopted: set[tuple[str, str]] = field(default_factory=set)

    def in_use(self) -> list[tuple[str, IPv4Interface]]:
        """Ident and address of everything in use, for the allocator to begin with."""
        found: dict[IPv4Address, tuple[str, IPv4Interface]] = {}
        for record in self.alive:  # those with a record come first: theirs it is
            for address in record.addresses:
                if isinstance(address, IPv4Interface):
                    found.setdefault(address.ip, (record.ident, address))
        return list(found.values())


def prepare(
    store: AttachmentStore,
    attacher: Attacher,
    bridge: str,
    holder: Callable[[int], str | None] = lambda _: None,
) -> Found:
    """Compare records and kernel; blocks. Only what was never finished is removed.

    Attachments without a record are ours if they are on ``bridge``, or on none. ``holder`` says
    for whom an address was stored: a link of Weave Net has no more of a container's id in its name
    than seven digits.

    Raises:
        ConfigError: the records cannot be read.
        NetlinkError: the kernel refused to tell.
    """
    records = {record.key: record for record in store.load()}
    found = Found()
    ends: dict[tuple[str, str], HostEnd] = {}
    for end in host_ends(attacher.host):
        if end.alias is not None:
            key = (end.alias.container, end.alias.ifname)
            if key in records or end.bridge in ("", bridge):
                ends[key] = end
        elif _is_half_made(end, records.values()):
            _delete(attacher.host, end)
        elif end.bridge == bridge and _LEGACY_NAME.fullmatch(end.link.name) and not end.link.alias:
            seen = container_end(attacher.host, end.link)
            if seen is not None and seen.addresses:
                ends[_legacy_container(end.link.name, seen.addresses, holder), seen.ifname] = end
    for record in records.values():
        end_of = ends.pop(record.key, None)
        if end_of is None:
            found.gone.append(record)
        elif record.under_way is None:
            found.alive.append(replace(record, host_ifname=end_of.link.name))
        elif not (addresses := _addresses(attacher.host, end_of)) or not record.addresses:
            # nobody was told of it
            _delete(attacher.host, end_of)
            found.gone.append(record)
        else:
            found.alive.append(replace(record, addresses=addresses))
    idents = {record.ident for record in found.alive}
    for (container, ifname), end_of in ends.items():
        addresses = _addresses(attacher.host, end_of)
        if not addresses:
            _delete(attacher.host, end_of)
            continue
        ident = container if container not in idents else f"{container}:{ifname}"
        idents.add(ident)
        adopted = Attachment(container, ifname, ident, bridge, end_of.link.name)
        found.alive.append(_seen(attacher.host, end_of, adopted))
        found.adopted.add((container, ifname))
    return found


async def settle(found: Found, attachments: Attachments, addresses: Addresses | None) -> None:
    """Release, claim, write; then the attachments are served.

    What the allocator or the disk refuses is logged and tried again at the next start.

    Raises:
        ConfigError: the records cannot be written.
    """
    book = attachments.book
    book.addresses = addresses
    for record in found.gone:
        log.info("container is gone", extra=_fields(record))
        try:
            await _release_gone(attachments, record)
        except AllocationError as err:
            log.warning("address not released", extra=_fields(record, err))
            continue
        await book.in_thread(lambda record=record: book.store.delete(record))  # type: ignore[misc]
    for record in found.alive:
        await _settle_one(attachments, record, adopted=record.key in found.adopted)
    attachments.begin([record.finished() for record in found.alive], addresses)


async def mend(attachments: Attachments) -> list[str]:
    """Put containers back on bridges that were made anew; what was changed.

    To be called once the bridge is there, and whenever it was made again.
    """
    changed: list[str] = []
    for record in attachments.records:
        try:
            changed += await attachments.book.in_thread(
                lambda record=record: mend_host_end(  # type: ignore[misc]
                    attachments.book.attacher.host, record.wanted(), host_name=record.host_ifname
                )
            )
        except NetlinkError as err:
            log.warning("container's port not mended", extra=_fields(record, err))
    for text in changed:
        log.info("container's port mended", extra=kv(what=text))
    return changed


async def _release_gone(attachments: Attachments, record: Attachment) -> None:
    book = attachments.book
    gone: tuple[Interface, ...] = record.addresses
    if record.under_way is not None:
        keep = {each.ip for each in record.under_way}
        gone = (*gone, *(each for each in await book.held(record.ident) if each.ip not in keep))
    for address in dict.fromkeys(gone):
        await book.release(record.ident, address)


async def _settle_one(attachments: Attachments, record: Attachment, *, adopted: bool) -> None:
    book = attachments.book
    addresses = book.addresses
    if addresses is not None:
        held = await book.held(record.ident)
        if record.under_way is not None:
            keep = {each.ip for each in (*record.under_way, *record.addresses)}
            for each in held:
                if each.ip not in keep:
                    await book.release(record.ident, each)
        for address in record.addresses:
            if isinstance(address, IPv4Interface) and address not in held:
                try:
                    await addresses.claim(record.ident, address, no_error_on_unknown=True)
                except AllocationError as err:
                    log.error("a container uses an address of others", extra=_fields(record, err))
    if adopted or record.under_way is not None:
        log.warning(
            "container found attached without a record"
            if adopted
            else "attachment found unfinished",
            extra=_fields(record),
        )
        await book.in_thread(lambda: book.store.put(record.finished()))


def _is_half_made(end: HostEnd, records: Iterable[Attachment]) -> bool:
    """A pair without alias, of an attachment that was under way."""
    return not end.link.alias and any(
        record.under_way is not None and record.host_ifname == end.link.name for record in records
    )


def _legacy_container(
    name: str, addresses: tuple[Interface, ...], holder: Callable[[int], str | None]
) -> str:
    """The id of the container behind a link of Weave Net; the link's name if nobody knows it."""
    digits = name.removeprefix(HOST_PREFIX)
    for address in addresses:
        if isinstance(address, IPv4Interface):
            ident = holder(int(address.ip))
            if ident is not None and ident.startswith(digits):
                return ident
    return name


def _addresses(host: RouteSocket, end: HostEnd) -> tuple[Interface, ...]:
    seen = container_end(host, end.link)
    return () if seen is None else seen.addresses


def _seen(host: RouteSocket, end: HostEnd, record: Attachment) -> Attachment:
    """A record of what is there."""
    seen = container_end(host, end.link)
    if seen is None:
        return record  # it goes at this moment
    return replace(
        record,
        mac=seen.mac,
        mtu=seen.mtu,
        hairpin=end.link.hairpin,
        addresses=seen.addresses,
        label=end.alias.label if end.alias is not None else "",
        made_at_s=time.time(),
    )


def _delete(host: RouteSocket, end: HostEnd) -> None:
    log.warning("unfinished attachment removed", extra=kv(ifname=end.link.name))
    host.one(req.delete_link(end.link.index, end.link.name), errno.ENODEV)


def _fields(record: Attachment, err: Exception | None = None) -> dict[str, object]:
    addresses = " ".join(map(str, record.addresses)) or None
    return kv(container=record.container, ifname=record.ifname, addrs=addresses, err=err)
