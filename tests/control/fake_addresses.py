"""Address allocation of one lone peer, in memory; what others use is told beforehand."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from base.errors import ClaimConflictError, NotHeldError


class FakeAddresses:
    """Keeps the promises of :class:`control.addresses.Addresses`."""

    def __init__(self, universe: str = "10.32.0.0/12", default: str | None = None) -> None:
        self.universe = IPv4Network(universe)
        self.default_subnet = IPv4Network(default or universe)
        self.held: dict[str, list[IPv4Interface]] = {}

    async def allocate(
        self,
        ident: str,
        subnet: IPv4Network | None = None,
        *,
        is_container: bool = False,
        timeout_s: float | None = None,
    ) -> IPv4Interface:
        where = subnet or self.default_subnet
        if found := await self.lookup(ident, where):
            return found[0]
        used = {each.ip for several in self.held.values() for each in several}
        address = next(each for each in where.hosts() if each not in used)
        cidr = IPv4Interface((address, where.prefixlen))
        self.held.setdefault(ident, []).append(cidr)
        return cidr

    async def claim(
        self,
        ident: str,
        cidr: IPv4Interface,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
    ) -> None:
        for other, several in self.held.items():
            if other != ident and any(each.ip == cidr.ip for each in several):
                raise ClaimConflictError(f"{cidr} is in use by {other}")
        if cidr not in self.held.setdefault(ident, []):
            self.held[ident].append(cidr)

    async def lookup(self, ident: str, subnet: IPv4Network | None = None) -> list[IPv4Interface]:
        where = subnet or self.default_subnet
        return [each for each in self.held.get(ident, []) if each.ip in where]

    async def free(self, ident: str, address: IPv4Address) -> None:
        for each in self.held.get(ident, []):
            if each.ip == address:
                self.held[ident].remove(each)
                return
        raise NotHeldError(f"{address} is not recorded under {ident}")

    async def delete(self, ident: str) -> None:
        if not self.held.pop(ident, None):
            raise NotHeldError(f"no addresses for {ident}")
