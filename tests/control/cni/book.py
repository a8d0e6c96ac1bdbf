"""Address allocation in one process: :class:`control.addresses.Addresses`, with tricks.

Files in the folder are the tricks: with ``wait`` allocation waits, with ``refuse`` nothing can be
given back, with ``forget`` nobody has anything. The whole book is in ``book.json``, so that a
restarted process goes on with it.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import anyio

from base.errors import (
    ClaimConflictError,
    NoAddressError,
    NotHeldError,
    NotStoredError,
    OutOfBoundsError,
)


class Book:
    """Every method as in the protocol."""

    def __init__(self, folder: Path, universe: str, default: str) -> None:
        self._folder = folder
        self.universe = IPv4Network(universe)
        self.default_subnet = IPv4Network(default)
        self._given: dict[str, list[IPv4Interface]] = {}
        if (folder / "book.json").exists():
            stored = json.loads((folder / "book.json").read_text())
            self._given = {key: [IPv4Interface(one) for one in ips] for key, ips in stored.items()}

    async def allocate(
        self,
        ident: str,
        subnet: IPv4Network | None = None,
        *,
        is_container: bool = False,
        timeout_s: float | None = None,
    ) -> IPv4Interface:
        network = subnet or self.default_subnet
        if not network.subnet_of(self.universe):
            raise OutOfBoundsError(f"{network} is outside of {self.universe}")
        for one in self._given.get(ident, []):
            if one.network == network:
                return one
        while (self._folder / "wait").exists():  # noqa: ASYNC110 - another process has the file
            await anyio.sleep(0.02)
        taken = {one.ip for ips in self._given.values() for one in ips}
        for address in network.hosts():
            if address not in taken:
                return self._put(ident, IPv4Interface(f"{address}/{network.prefixlen}"))
        raise NoAddressError(f"no free address in {network}")

    async def claim(
        self,
        ident: str,
        cidr: IPv4Interface,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
    ) -> None:
        for owner, ips in self._given.items():
            if cidr.ip in {one.ip for one in ips}:
                if owner == ident:
                    return
                raise ClaimConflictError(f"address {cidr.ip} is already owned by {owner}")
        self._put(ident, cidr)

    async def lookup(self, ident: str, subnet: IPv4Network | None = None) -> list[IPv4Interface]:
        return [] if (self._folder / "forget").exists() else list(self._given.get(ident, []))

    async def free(self, ident: str, address: IPv4Address) -> None:
        held = self._given.get(ident, [])
        kept = [one for one in held if one.ip != address]
        if len(kept) == len(held):
            raise NotHeldError(f"{address} is not {ident}'s")
        self._release(ident, kept)

    async def delete(self, ident: str) -> None:
        if ident not in self._given:
            raise NotHeldError(f"no addresses for {ident}")
        self._release(ident, [])

    def _release(self, ident: str, kept: list[IPv4Interface]) -> None:
        if (self._folder / "refuse").exists():
            raise NotStoredError("the disk is full")
        self._commit({**self._given, ident: kept})

    def _put(self, ident: str, address: IPv4Interface) -> IPv4Interface:
        self._commit({**self._given, ident: [*self._given.get(ident, []), address]})
        return address

    def _commit(self, given: dict[str, list[IPv4Interface]]) -> None:
        given = {ident: ips for ident, ips in given.items() if ips}
        text = json.dumps({ident: [str(one) for one in ips] for ident, ips in given.items()})
        fresh = self._folder / "book.new"
        try:
            fresh.write_text(text)
        except OSError as err:
            raise NotStoredError(str(err)) from err
        fresh.replace(self._folder / "book.json")
        self._given = given
