"""What is left over: pairs without a record, records without a pair, addresses held for nobody.

Only looks. What is being made at the moment is left out. Addresses are compared only where the
allocator can list what it holds.

Source of truth: node specification 6.4; the shape is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

import anyio.lowlevel

from cni.attach import Attacher
from cni.inventory import HostEnd, container_end, host_ends
from cni.verify import host_problems
from control.addresses import ANONYMOUS_IDENT, EXPOSE_IDENT
from control.attachment_store import Attachment
from control.attachments import Attachments

_AT_ONCE: Final = 1000
#: Ident and addresses of everything that the allocator holds.
Owned = Iterable[tuple[str, tuple[IPv4Interface, ...]]]


@dataclass(slots=True)
class Audit:
    """``leaks`` are left over by mistake; ``problems`` those of attachments that exist.

    Not ours to judge: ``unattached`` addresses, held for an ident that somebody chose himself, and
    ``notes`` about interfaces that do not say whose they are.
    """

    leaks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unattached: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For ``weft audit --json``."""
        return {
            "Leaks": self.leaks,
            "Problems": self.problems,
            "Unattached": self.unattached,
            "Notes": self.notes,
        }


async def audit(
    attachments: Attachments, bridge: str, owned: Callable[[], Owned] | None = None
) -> Audit:
    """Compare records, kernel and allocator; ``bridge`` is the node's own.

    Raises:
        NetlinkError: the kernel refused to tell.
        ConfigError: the records cannot be read.
    """
    book = attachments.book
    stored = await book.in_thread(book.store.load)
    look = partial(_look_at_kernel, book.attacher, list(book.records.values()))
    result, ends = await book.in_thread(look)
    known = {record.host_ifname for record in book.records.values()}
    for end in ends:
        if end.alias is None or end.bridge not in ("", bridge):
            if end.bridge == bridge and end.link.name not in known:
                result.notes.append(f"interface {end.link.name} does not say whose it is")
        elif (end.alias.container, end.alias.ifname) not in book.records and not book.busy(
            end.alias.container
        ):
            result.leaks.append(f"interface {end.link.name} of {end.alias} has no record")
    for record in stored:
        if book.busy(record.container):
            continue
        if record.key not in book.records:
            result.leaks.append(f"record of {_name(record)} is of no attachment")
        elif record.under_way is not None:
            result.leaks.append(f"record of {_name(record)} was never finished")
    if owned is not None:
        await _compare_addresses(result, attachments, owned())
    return result


def _look_at_kernel(attacher: Attacher, records: list[Attachment]) -> tuple[Audit, list[HostEnd]]:
    result = Audit()
    ends = host_ends(attacher.host)
    by_name = {end.link.name: end for end in ends}
    for record in records:
        end = by_name.get(record.host_ifname)
        if end is None:
            result.leaks.append(f"record of {_name(record)} has no interface")
            continue
        found = []
        if not record.foreign:
            found = host_problems(attacher.host, record.wanted(), host_name=record.host_ifname)
        seen = container_end(attacher.host, end.link)
        if seen is None:
            found.append("its other end is not to be seen")
        else:
            found += [
                f"address {each} is missing"
                for each in record.addresses
                if each not in seen.addresses
            ]
        result.problems += [f"{_name(record)}: {text}" for text in found]
    return result, ends


async def _compare_addresses(result: Audit, attachments: Attachments, owned: Owned) -> None:
    book = attachments.book
    by_ident = {record.ident: record for record in book.records.values()}
    held: dict[str, set[IPv4Address]] = {}  # of nested subnets, one address may be in both
    for number, (ident, cidrs) in enumerate(owned):
        if number % _AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()  # a full range has a million addresses
        held[ident] = {each.ip for each in cidrs}
        if ident in (ANONYMOUS_IDENT, EXPOSE_IDENT) or book.busy(ident.partition(":")[0]):
            continue
        record = by_ident.get(ident)
        used = set() if record is None else {each.ip for each in record.addresses}
        texts = [str(each) for each in cidrs if each.ip not in used]
        if not texts:
            continue
        text = f"{', '.join(texts)} held for {ident}, which has no interface with it"
        # <id>:<interface> is nobody's idea but ours
        (result.leaks if ":" in ident else result.unattached).append(text)
    for record in book.records.values():
        missing = [
            str(each)
            for each in record.addresses
            if isinstance(each, IPv4Interface) and each.ip not in held.get(record.ident, set())
        ]
        if missing:
            result.problems.append(f"{_name(record)}: {', '.join(missing)} not held for it")


def _name(record: Attachment) -> str:
    return f"{record.container} {record.ifname}"
