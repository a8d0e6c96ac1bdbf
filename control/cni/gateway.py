"""Which gateway and routes an attachment gets, and the bridge's own addresses.

Source of truth: cni specification 4, steps 3 and 6, and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, ip_network
from typing import Final

from base.errors import CniError
from cni import fields
from cni.codes import Code, unsupported
from cni.config import BUILT_IN_IPAM, DEFAULT_BRIDGE, parse_weave_ipam, patience
from cni.fields import Address, Network
from cni.result import Ip, Result, Route
from control.addresses import EXPOSE_IDENT
from control.cni.bridges import Bridges
from control.cni.call import Call
from control.cni.exposure import Exposure
from control.cni.ipams import HOST_LOCAL_TYPES, Ipams
from control.cni.records import ExposeRecord, Records

#: What a foreign IPAM knows the bridge by: a strict one refuses the colon of ``weave:expose``.
FOREIGN_EXPOSE_ID: Final = "weave-expose"


@dataclass(slots=True, frozen=True)
class Ways:
    """``gateway``: what the answer names; ``routes``: what is made."""

    gateway: Address | None
    routes: tuple[Route, ...]


class Gateways:
    """See the module's head. ``records``: addresses that other IPAMs gave for bridges."""

    def __init__(
        self,
        bridges: Bridges,
        ipams: Ipams,
        records: Records[ExposeRecord],
        exposure: Exposure,
    ) -> None:
        self._bridges = bridges
        self._ipams = ipams
        self._records = records
        self._exposure = exposure

    def exposed(self, network: str) -> set[tuple[str, str]]:
        """What GC has to spare of a network beside containers."""
        return {(one.container, one.ifname) for one in self._records.of_network(network)}

    async def foreign_ways(self, call: Call, bridge: str, given: Result, ips: Sequence[Ip]) -> Ways:
        """For addresses that another IPAM gave.

        Raises:
            CniError, WeftError: no gateway is to be had; code 2, a route has more than we make.
        """
        ipam = fields.table(call.base.raw, "ipam")
        own = fields.optional_address(ipam, "gateway", "ipam.")
        said = fields.rows(ipam, "routes", "ipam.")
        routes = given.routes if said is not None or given.routes else None
        networks = [(ip.address.network, ip.gateway) for ip in ips]
        return await self.ways(call, bridge, routes, networks, own)

    async def ways(
        self,
        call: Call,
        bridge: str,
        routes: tuple[Route, ...] | None,
        networks: Sequence[tuple[Network, Address | None]],
        own: Address | None,
    ) -> Ways:
        """For addresses in ``networks``, each with the gateway that IPAM named.

        ``routes`` None: none were said, so there is a default route; ``own`` is the gateway that
        the configuration says, None: the bridge.

        Raises:
            CniError, WeftError: as above.
        """
        gateways: dict[int, Address | None] = {}
        if own is not None:
            gateways[own.version] = own
        if routes is None:
            made: dict[Network, Route] = {}
            for network, _ in networks:
                if network.version not in gateways:
                    gateways[network.version] = await self._bridge_gateway(call, bridge, network)
                everywhere = ip_network("0.0.0.0/0" if network.version == 4 else "::/0")
                if gateways[network.version] is not None:
                    made[everywhere] = Route(everywhere, gateways[network.version])
            return Ways(next(iter(gateways.values()), None), tuple(made.values()))
        for network, named in networks:
            gateways.setdefault(network.version, named)
        for one in routes:
            for name, value in one.numbers.items():
                raise unsupported(f"ipam.routes {name}", value, "leave it out")
        completed = [
            replace(one, gateway=one.gateway or gateways.get(one.destination.version))
            for one in routes
        ]
        return Ways(next(iter(gateways.values()), None), tuple(completed))

    async def _bridge_gateway(self, call: Call, bridge: str, network: Network) -> Address | None:
        """The bridge's address in the network, else its first, else a new one."""
        found = (await self._bridges.get(bridge)).addresses
        same = [one for one in found if one.version == network.version]
        inside = [one for one in same if one.network == network]
        if inside or same:
            return (inside or same)[0].ip
        if not isinstance(network, IPv4Network):
            return None
        if call.base.ipam_type in BUILT_IN_IPAM:
            ident = EXPOSE_IDENT if bridge == DEFAULT_BRIDGE else f"{EXPOSE_IDENT}:{bridge}"
            ipam = parse_weave_ipam(call.base, call.environment.args)
            own = await self._ipams.addresses().allocate(
                ident, ipam.subnet, timeout_s=patience(ipam.timeout_s)
            )
        else:
            own = await self._foreign_gateway(call)
        await self._exposure.expose(bridge, own)
        self._bridges.changed()
        return own.ip

    async def _foreign_gateway(self, call: Call) -> IPv4Interface:
        """An address for the bridge from another IPAM, asked for once and remembered."""
        variables = {**call.environment.variables, "CNI_CONTAINERID": FOREIGN_EXPOSE_ID}
        variables.pop("CNI_ARGS", None)  # an address asked for there is the container's
        inner = replace(
            call,
            environment=replace(
                call.environment, container_id=FOREIGN_EXPOSE_ID, args={}, variables=variables
            ),
        )
        ipam = self._ipams.of_type(call.base.ipam_type)
        if call.base.ipam_type in HOST_LOCAL_TYPES:
            await ipam.delete(inner)  # what a bridge of before had
        given = await ipam.add(inner)
        own = next((ip.address for ip in given.ips if isinstance(ip.address, IPv4Interface)), None)
        if own is None:
            raise CniError(Code.GENERAL, "the IPAM plugin gave the bridge no IPv4 address")
        record = ExposeRecord(
            container=FOREIGN_EXPOSE_ID, ifname=call.ifname, network=call.base.name
        )
        try:
            self._records.put(record)
        except OSError as err:
            raise CniError(Code.IO_FAILURE, "cannot record the gateway", str(err)) from err
        return own
