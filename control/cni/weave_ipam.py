"""Weave's own IPAM as a CNI plugin: by itself, and behind weave-net.

A container's first interface is known to IPAM by the container's id, as in Weave Net, every further
one by ``<id>:<interface>``. Source of truth: cni specification 3, 4 and 5.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

import anyio

from base.errors import CniError, NotHeldError
from base.log import kv
from cni.codes import Code, invalid
from cni.config import WeaveIpamConfig, parse_weave_ipam, patience, valid_attachments
from cni.result import Ip, Result
from control.addresses import Addresses
from control.cni.call import Call
from control.cni.records import IpamRecord, Records, ipam_key

#: For giving back what nobody will use.
_RELEASE_TIMEOUT_S: Final = 10

log = logging.getLogger(__name__)


class WeaveIpam:
    """A :class:`control.cni.call.Plugin`. ``in_use``: whether another has addresses so named."""

    def __init__(
        self,
        addresses: Addresses,
        records: Records[IpamRecord],
        in_use: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._addresses = addresses
        self._records = records
        self._in_use = in_use

    async def add(self, call: Call) -> Result:
        """The addresses of the interface: those it has, or new ones."""
        config = parse_weave_ipam(call.base, call.environment.args)
        ident = self._ident(call.container_id, call.ifname)
        known = self._records.get(ipam_key(call.container_id, call.ifname))
        try:
            given = await self._obtain(ident, config)
            self._remember(call, ident, given)
        except BaseException:
            if known is None:
                with anyio.move_on_after(_RELEASE_TIMEOUT_S, shield=True):
                    await self._delete_ident(ident)
            raise
        return Result(
            ips=tuple(Ip(address, config.gateway) for address in given),
            routes=config.routes or (),
        )

    def _ident(self, container: str, ifname: str) -> str:
        known = self._records.get(ipam_key(container, ifname))
        if known is not None:
            return known.ident
        used = self._is_anothers(container)
        return f"{container}:{ifname}" if used else container

    def _is_anothers(self, container: str) -> bool:
        return self._in_use(container) or self.has_ident(container)

    def has_ident(self, ident: str) -> bool:
        """Whether an interface has its addresses under this very ident."""
        container = ident.partition(":")[0]
        return any(one.ident == ident for one in self._records.of_container(container))

    async def _obtain(self, ident: str, config: WeaveIpamConfig) -> list[IPv4Interface]:
        wanted = parse_static(config, self._addresses.default_subnet)
        for address in wanted:
            await self._addresses.claim(ident, address)
        if wanted:
            return wanted
        limit_s = patience(config.timeout_s)
        return [await self._addresses.allocate(ident, config.subnet, timeout_s=limit_s)]

    def _remember(self, call: Call, ident: str, given: list[IPv4Interface]) -> None:
        record = IpamRecord(
            container=call.container_id,
            ifname=call.ifname,
            network=call.base.name,
            ident=ident,
            addresses=tuple(str(address) for address in given),
        )
        if record == self._records.get(ipam_key(call.container_id, call.ifname)):
            return
        try:
            self._records.put(record)
        except OSError as err:
            raise CniError(Code.IO_FAILURE, "cannot record the address", str(err)) from err

    async def delete(self, call: Call) -> None:
        """Give back every address of the interface."""
        await self.release(call.container_id, call.ifname)

    async def release(self, container: str, ifname: str) -> None:
        """The same, whoever asks.

        Raises:
            AllocationError: they could not be given back.
            CniError: code 5, nor can their record be removed.
        """
        known = self._records.get(ipam_key(container, ifname))
        if known is not None:
            await self._delete_ident(known.ident)
        elif not await self._delete_ident(f"{container}:{ifname}") and not self._is_anothers(
            container
        ):
            # without records (lost, or an older release's): the id alone, unless it is another's
            await self._delete_ident(container)
        try:
            self._records.remove(ipam_key(container, ifname))
        except OSError as err:
            raise CniError(Code.IO_FAILURE, "cannot forget the address", str(err)) from err

    async def _delete_ident(self, ident: str) -> bool:
        try:
            await self._addresses.delete(ident)
        except NotHeldError:
            return False
        return True

    async def check(self, call: Call) -> None:
        """Find that IPAM still holds the addresses under this interface's name."""
        known = self._records.get(ipam_key(call.container_id, call.ifname))
        if known is None:
            raise CniError(
                Code.GENERAL, f"no address of container {call.container_id} for {call.ifname}"
            )
        held = {str(one) for one in await self._addresses.lookup(known.ident)}
        missing = [address for address in known.addresses if address not in held]
        if missing:
            raise CniError(
                Code.GENERAL, f"address {missing[0]} is no longer allocated to {known.ident}"
            )

    async def collect(self, call: Call) -> None:
        """Give back what belongs to no valid attachment of this network."""
        valid = valid_attachments(call.base)
        failed: list[str] = []
        for record in self._records.of_network(call.base.name):
            if (record.container, record.ifname) in valid:
                continue
            try:
                await self.release(record.container, record.ifname)
                log.info("address collected", extra=kv(container=record.container))
            except Exception as err:  # noqa: BLE001 - the others have to go all the same
                failed.append(f"{record.container} {record.ifname}: {err}")
        if failed:
            raise CniError(Code.GENERAL, f"{len(failed)} addresses not given back", failed[0])

    async def status(self, call: Call) -> None:
        """Find that the subnet is one that addresses come from."""
        config = parse_weave_ipam(call.base, call.environment.args)
        subnet = config.subnet
        if subnet is not None and not subnet.subnet_of(self._addresses.universe):
            raise invalid(f"ipam.subnet {subnet} is outside of {self._addresses.universe}")


def parse_static(config: WeaveIpamConfig, default: IPv4Network) -> list[IPv4Interface]:
    """The addresses asked for, those without prefix length with their subnet's.

    Raises:
        CniError: code 7, one is in no subnet.
    """
    network = config.subnet or default
    found = []
    for one in config.static:
        if not isinstance(one, IPv4Interface):
            if one not in network:
                raise invalid(f"requested address {one} is not in {network}")
            found.append(IPv4Interface(f"{one}/{network.prefixlen}"))
        else:
            found.append(one)
    return found
