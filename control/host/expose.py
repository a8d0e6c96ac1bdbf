"""Exposed addresses: the host takes part in the overlay, and the overlay in the host's network.

The kernel and the records of address allocation are the truth; there is no third book. At start
each address on the bridge is exposed again, and what the records say is put back if the bridge was
lost. An address on the bridge that is somebody else's in the records would be a duplicate: it is
taken off (#3620). Nothing here waits for consensus but the allocation of a new address.

Source of truth: node specification 4 and 10; ipam specification 9.3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

import anyio
import anyio.to_thread

from base.errors import (
    AllocationError,
    ClaimConflictError,
    ConfigError,
    NetlinkError,
    NotHeldError,
    RequestCancelledError,
)
from base.log import kv
from control.addresses import EXPOSE_IDENT, Addresses
from control.host import bridge as bridges
from control.host.address_spec import AddressSpec, FixedAddress, FromSubnet, check_length
from control.host.firewall import Firewall
from control.host.ruleset import Exposed

log = logging.getLogger(__name__)

_NO_IPAM: Final = "IP address allocation must be enabled to use 'net:'"

#: Without a subnet only the default one is looked up.
_EVERYWHERE: Final = IPv4Network("0.0.0.0/0")

#: Announces an address on an interface in the background.
Announce = Callable[[str, IPv4Interface], None]


@dataclass(slots=True)
class _Known:
    """What is exposed, by address, in the order of exposure; ``index`` of the bridge it was on."""

    entries: dict[IPv4Interface, Exposed]
    index: int = 0


class Exposer:
    """Addresses of one bridge. Calls may overlap; each sees the others' results.

    ``addresses`` None: allocation is off.
    """

    def __init__(
        self, bridge: str, addresses: Addresses | None, firewall: Firewall, announce: Announce
    ) -> None:
        self._bridge = bridge
        self._addresses = addresses
        self._firewall = firewall
        self._announce = announce
        self._known = _Known({})
        self._lock = anyio.Lock()

    @property
    def exposed(self) -> list[Exposed]:
        """What is exposed now, in the order of exposure."""
        return list(self._known.entries.values())

    async def expose(
        self, specs: Iterable[AddressSpec], *, masquerade: bool = True
    ) -> list[IPv4Interface]:
        """Expose an address for each; waits for allocation where it has to. Idempotent.

        Raises:
            ConfigError: allocation is off and an address from a subnet is wanted.
            AllocationError: it cannot be had.
            NetlinkError: there is no bridge, or the kernel refused.
            NftError: the rules could not be installed; they are tried again.
        """
        done: list[IPv4Interface] = []
        for spec in specs:
            held = await self._held_ips()
            address = await self._obtain(spec)
            try:
                with anyio.CancelScope(shield=True):
                    await self._expose_address(address, masquerade=masquerade, recorded=True)
            except NetlinkError:
                if address.ip not in held:
                    await self._give_back(address)
                raise
            done.append(address)
        return done

    async def expose_address(self, address: IPv4Interface, *, masquerade: bool = True) -> None:
        """Expose this very address, whatever the records say. Raises as :meth:`expose`."""
        with anyio.CancelScope(shield=True):  # all of it or nothing
            await self._expose_address(address, masquerade=masquerade)

    async def _expose_address(
        self, address: IPv4Interface, *, masquerade: bool, recorded: bool = False
    ) -> None:
        async with self._lock:
            if (
                recorded
                and self._addresses is not None
                and address.ip not in await self._held_ips()
            ):
                # by now it may be another's
                raise RequestCancelledError(f"{address} was hidden while it was being exposed")
            added = await anyio.to_thread.run_sync(bridges.add_address, self._bridge, address)
            self._known.index = await self._bridge_index()
            self._announce(self._bridge, address)
            self._known.entries[address] = Exposed(address, masquerade)
            if added:
                log.info("address exposed", extra=kv(addr=str(address), masquerade=masquerade))
            await self._install()

    async def hide(self, specs: Iterable[AddressSpec]) -> list[IPv4Interface]:
        """Undo :meth:`expose`; the addresses that were hidden. Never waits for other peers.

        Raises:
            ConfigError: as for :meth:`expose`.
            NetlinkError, NftError: the kernel refused.
        """
        gone: list[IPv4Interface] = []
        for spec in specs:
            for address in await self._matching(spec):
                await self.hide_address(address)
                gone.append(address)
        return gone

    async def hide_address(self, address: IPv4Interface) -> None:
        """Take this very address and its rules away, and its record. Raises as :meth:`hide`."""
        with anyio.CancelScope(shield=True):
            await self._hide_address(address)

    async def _hide_address(self, address: IPv4Interface) -> None:
        async with self._lock:
            await anyio.to_thread.run_sync(bridges.remove_address, self._bridge, address)
            if self._known.entries.pop(address, None) is not None:
                log.info("address hidden", extra=kv(addr=str(address)))
            try:
                await self._install()
            finally:  # rules are tried again by themselves
                await self._give_back(address)

    async def adopt(self, plain: Iterable[str]) -> None:
        """At start: what is on the bridge stays exposed, so that no rule is missing for a moment.

        ``plain``: addresses that the last process had exposed without masquerade.

        Raises:
            NetlinkError: netlink failed.
        """
        state = await anyio.to_thread.run_sync(bridges.read, self._bridge)
        without = set(plain)
        for address in () if state is None else state.addresses:
            masquerade = str(address.ip) not in without
            self._known.entries[address] = Exposed(address, masquerade)
        self._firewall.preset(exposed=tuple(self._known.entries.values()))

    async def restore(self) -> None:
        """At start, and when the bridge has changed: bring bridge, records and rules together.

        Raises:
            NetlinkError, NftError: the kernel refused.
        """
        async with self._lock:
            state = await anyio.to_thread.run_sync(bridges.read, self._bridge)
            if state is None or state.kind != "bridge":
                return
            wanted = dict(self._known.entries)
            for address in (*state.addresses, *await self._held()):
                wanted.setdefault(address, Exposed(address))
            for address in list(wanted):
                if not await self._is_ours(address):
                    del wanted[address]
                    await anyio.to_thread.run_sync(bridges.remove_address, self._bridge, address)
                    log.warning(
                        "address taken off the bridge",
                        extra=kv(addr=str(address), reason="it is allocated to another"),
                    )
                    continue
                await anyio.to_thread.run_sync(bridges.add_address, self._bridge, address)
                self._announce(self._bridge, address)
            self._known = _Known(wanted, state.index)
            if wanted:
                log.info("addresses exposed again", extra=kv(addr=_listed(wanted)))
            await self._install()

    async def follow(self, bridge: bridges.BridgeState) -> None:
        """The bridge is so: if it is another one, or has lost an address, put back what was there.

        Whoever manages the host's network may have flushed it; containers have that address as
        their gateway.
        """
        flushed = self._known.entries.keys() - set(bridge.addresses)
        if flushed or bridge.index != self._known.index:
            await self.restore()

    # ---------------------------------------------------------------------------------------------

    async def _install(self) -> None:
        wanted = tuple(self._known.entries.values())
        if wanted != self._firewall.rules.exposed:
            await self._firewall.change(exposed=wanted)

    async def _bridge_index(self) -> int:
        state = await anyio.to_thread.run_sync(bridges.read, self._bridge)
        return 0 if state is None else state.index

    async def _held(self) -> list[IPv4Interface]:
        if self._addresses is None:
            return []
        return await self._addresses.lookup(EXPOSE_IDENT, _EVERYWHERE)

    async def _held_ips(self) -> set[IPv4Address]:
        """Without their lengths: of nested subnets, one address is recorded once."""
        return {each.ip for each in await self._held()}

    async def _obtain(self, spec: AddressSpec) -> IPv4Interface:
        if isinstance(spec, FixedAddress):
            check_length(spec.address, (*self._known.entries, *await self._held()))
            if self._addresses is not None:
                await self._addresses.claim(EXPOSE_IDENT, spec.address, no_error_on_unknown=True)
            return spec.address
        if self._addresses is None:
            raise ConfigError(_NO_IPAM)
        return await self._addresses.allocate(EXPOSE_IDENT, spec.subnet)

    async def _matching(self, spec: AddressSpec) -> list[IPv4Interface]:
        match spec:
            case FixedAddress(address):
                state = await anyio.to_thread.run_sync(bridges.read, self._bridge)
                present = () if state is None else state.addresses
                held = await self._held()
                known = address in present or address in self._known.entries or address in held
                return [address] if known else []
            case FromSubnet(subnet):
                if self._addresses is None:
                    raise ConfigError(_NO_IPAM)
                where = self._addresses.default_subnet if subnet is None else subnet
                entries = self._known.entries
                held = await self._addresses.lookup(EXPOSE_IDENT, where)
                # recorded with one length, it may be exposed with others
                found = [each for each in entries if each.network == where]
                ips = {each.ip for each in entries}
                found += [each for each in held if each in entries or each.ip not in ips]
                return list(dict.fromkeys(found))

    async def _is_ours(self, address: IPv4Interface) -> bool:
        if self._addresses is None:
            return True
        try:
            await self._addresses.claim(EXPOSE_IDENT, address, no_error_on_unknown=True)
        except ClaimConflictError:
            return False
        except AllocationError as err:
            log.warning("claim undecided", extra=kv(addr=str(address), err=str(err)))
        return True

    async def _give_back(self, address: IPv4Interface) -> None:
        # of nested subnets, one address may be in both
        if self._addresses is None or any(each.ip == address.ip for each in self._known.entries):
            return
        try:
            await self._addresses.free(EXPOSE_IDENT, address.ip)
        except NotHeldError:
            return


def _listed(addresses: Iterable[IPv4Interface]) -> str:
    return " ".join(str(each) for each in addresses)
