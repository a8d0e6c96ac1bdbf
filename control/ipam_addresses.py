"""IPAM as the rest of control sees it: :class:`control.addresses.Addresses` over the service."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from control.ipam_service import IpamService
from ipam.address import Cidr


class IpamAddresses:
    """See :class:`control.addresses.Addresses`; errors are those of the service."""

    def __init__(self, service: IpamService) -> None:
        self._service = service

    @property
    def universe(self) -> IPv4Network:
        """The range that peers divide among themselves."""
        return IPv4Network(tuple(self._service.universe))

    @property
    def default_subnet(self) -> IPv4Network:
        """Where addresses come from when nobody names a subnet."""
        return IPv4Network(tuple(self._service.default_subnet))

    async def allocate(
        self,
        ident: str,
        subnet: IPv4Network | None = None,
        *,
        is_container: bool = False,
        timeout_s: float | None = None,
    ) -> IPv4Interface:
        """The address of ``ident`` in ``subnet``."""
        found = await self._service.allocate(
            ident, _subnet(subnet), is_container=is_container, timeout_s=timeout_s
        )
        return IPv4Interface(tuple(found))

    async def claim(
        self,
        ident: str,
        cidr: IPv4Interface,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
    ) -> None:
        """Record that ``ident`` uses this very address."""
        await self._service.claim(
            ident,
            Cidr(int(cidr.ip), cidr.network.prefixlen),
            is_container=is_container,
            no_error_on_unknown=no_error_on_unknown,
        )

    async def lookup(self, ident: str, subnet: IPv4Network | None = None) -> list[IPv4Interface]:
        """Addresses of ``ident`` in the subnet."""
        found = await self._service.lookup(ident, _subnet(subnet))
        return [IPv4Interface(tuple(each)) for each in found]

    async def free(self, ident: str, address: IPv4Address) -> None:
        """Give one address back."""
        await self._service.free(ident, int(address))

    async def delete(self, ident: str) -> None:
        """Give back all addresses of ``ident``."""
        await self._service.delete(ident)


def owned_by(service: IpamService) -> Iterator[tuple[str, tuple[IPv4Interface, ...]]]:
    """Ident and addresses of everything that is held now, however long it takes to read them."""
    held = list(service.owned())
    return ((ident, tuple(IPv4Interface(tuple(each)) for each in cidrs)) for ident, cidrs in held)


def _subnet(subnet: IPv4Network | None) -> Cidr | None:
    return None if subnet is None else Cidr(int(subnet.network_address), subnet.prefixlen)
