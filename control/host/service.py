"""The host's side of a node as one object, to start and stop with the daemon.

::

    settings = HostSettings(
        bridge="weave",
        control_ports=loopback_ports(options.http_addr),
        backend=Backend.of(os.environ),
    )
    host = HostService(settings, IpamAddresses(ipam))
    async with anyio.create_task_group() as tasks:
        await tasks.start(host.run)            # packet filter installed, being watched
        ...
        host.set_local_ranges([(start, end)])  # from the ring, --no-masq-local
        host.set_ports({"vethwepl1234567": Port(mac, addresses)})  # from the attachments
        await host.expose([FromSubnet(None)])

All methods are called on the service's own event loop. A stop leaves everything as it is:
containers and host go on without a daemon. What a reset takes away: :mod:`control.host.reset`.

Source of truth: node specification 2, 4, 5, 6.1a.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from base.errors import NetlinkError, NftError, PlatformError
from base.log import kv
from base.names import Mac
from cni.announce import Announcer, announcing_socket, gratuitous_arp
from control.addresses import Addresses
from control.host import bridge as bridges
from control.host import nft, ruleset, weave_net
from control.host.address_spec import AddressSpec
from control.host.checks import warnings_of
from control.host.devices import PORT
from control.host.expose import Exposer
from control.host.firewall import Firewall, IdleFirewall
from control.host.foreign import Backend
from control.host.links import LinkEvents
from control.host.owned import OwnedRanges
from control.host.ports import Ports
from control.host.ruleset import Exposed, HostRules
from control.http_addr import TcpAddr, parse_http_addrs
from control.node import HostView

log = logging.getLogger(__name__)

_SETTLE_S: Final = 0.05
#: Links come and go with every container; the bridge is looked at no more often than that.
_LOOK_S: Final = 0.5
_RETRY_S: Final = 5.0


def loopback_ports(http_addr: str) -> tuple[int, ...]:
    """Ports of 127.0.0.1 that the HTTP API listens on, for :class:`HostSettings`.

    Raises:
        ConfigError: ``http_addr`` holds something that is no address.
    """
    found = parse_http_addrs(http_addr)
    return tuple(each.port for each in found if isinstance(each, TcpAddr) and each.ip.is_loopback)


@dataclass(slots=True, frozen=True)
class HostSettings:
    """What the command line says of the host; ports as in :class:`HostRules`.

    ``no_masq_local``: keep the source addresses of what goes to our own ranges. ``port_security``:
    containers send as themselves only.
    ``packet_filter`` False: the packet filter is somebody else's and stays as it is. ``adopt``: the
    rules of a Weave Net router that ran here are removed, unless its policy controller may go on.
    """

    bridge: str = "weave"
    router_port: int = 6783
    control_ports: tuple[int, ...] = (6784,)
    no_masq_local: bool = False
    expect_npc: bool = False
    pods_to_router: bool = False
    docker_bridge: str = ""
    port_security: bool = False
    backend: Backend = Backend.AUTO
    packet_filter: bool = True
    adopt: bool = False

    def rules(self) -> HostRules:
        """The packet filter before anything is exposed or owned."""
        return HostRules(
            bridge=self.bridge,
            local_ranges=() if self.no_masq_local else None,
            control_ports=self.control_ports,
            router_port=self.router_port,
            pods_to_router=self.pods_to_router,
            expect_npc=self.expect_npc,
            docker_bridge=self.docker_bridge,
            port_security=self.port_security,
        )


class HostService:
    """See the module's head. One use per object.

    ``addresses`` None: allocation is off; only fixed addresses can be exposed.
    """

    def __init__(self, settings: HostSettings, addresses: Addresses | None = None) -> None:
        self._settings = settings
        firewall = Firewall if settings.packet_filter else IdleFirewall
        self._firewall = firewall(settings.rules(), settings.backend)
        self._exposer = Exposer(settings.bridge, addresses, self._firewall, self._announce)
        self._owned = OwnedRanges()
        self._announcer = Announcer()
        self._wanted_ranges: list[tuple[int, int]] | None = None
        self._wanted_ports: Ports | None = None
        self._wishes = anyio.Event()
        #: Called at the start, and when links of the host have changed.
        self.on_links: Callable[[], None] = _nobody
        #: Times that a setting of the bridge had to be set.
        self.bridge_changes = 0

    # For the daemon ------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Install, watch and mend until cancelled. Never fails: see :meth:`view`."""
        with closing(self._announcer), LinkEvents() as links:
            await self._adopt()
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._firewall.run)
                await self._remove_predecessor()
                tasks.start_soon(self._follow_wishes)
                task_status.started()
                await self._follow_bridge(links)

    def set_local_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Ranges of addresses (start, end; end exclusive) that this peer owns; applied soon.

        Nothing without ``no_masq_local``.
        """
        if self._settings.no_masq_local:
            self._wanted_ranges = list(ranges)
            self._wishes.set()

    def set_ports(self, ports: Ports) -> None:
        """The containers by the host ends of their links; applied soon."""
        self._wanted_ports = ports
        self._wishes.set()

    # For the API ---------------------------------------------------------------------------------

    @property
    def exposed(self) -> list[Exposed]:
        """What is exposed now."""
        return self._exposer.exposed

    async def expose(
        self, specs: Iterable[AddressSpec], *, masquerade: bool = True
    ) -> list[IPv4Interface]:
        """See :meth:`Exposer.expose`."""
        return await self._exposer.expose(specs, masquerade=masquerade)

    async def expose_address(self, address: IPv4Interface, *, masquerade: bool = True) -> None:
        """See :meth:`Exposer.expose_address`."""
        await self._exposer.expose_address(address, masquerade=masquerade)

    async def hide(self, specs: Iterable[AddressSpec]) -> list[IPv4Interface]:
        """See :meth:`Exposer.hide`."""
        return await self._exposer.hide(specs)

    async def hide_address(self, address: IPv4Interface) -> None:
        """See :meth:`Exposer.hide_address`."""
        await self._exposer.hide_address(address)

    def view(self) -> HostView:
        """A picture for status, report and metrics; never waits."""
        counted = self._firewall.statistics
        found = [f"packet filter: {self._firewall.problem}"] if self._firewall.problem else []
        return HostView(
            exposed=tuple(str(each.address) for each in self.exposed),
            counters={
                "reconciles": counted.reconciles,
                "restored": counted.restored,
                "failures": counted.failures,
                "bridge_changes": self.bridge_changes,
            },
            warnings=(*found, *warnings_of()),
        )

    # ---------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take over what the last process left, before anything is replaced."""
        try:
            rules = self._firewall.rules
            listing = await nft.list_table(ruleset.FAMILY, rules.table)
            before = await anyio.to_thread.run_sync(bridges.read, self._settings.bridge)
            self._firewall.preset(joined=before is not None and before.joined)
            plain = [str(each) for each in nft.elements(listing, ruleset.PLAIN_SET)]
            await self._exposer.adopt(plain)
            if self._settings.no_masq_local:
                networks = nft.networks(listing, ruleset.LOCAL_SET)
                self._owned.start_with(networks)
                self._firewall.preset(local_ranges=self._owned.networks)
        except PlatformError as err:
            log.warning("nothing taken over from the last run", extra=kv(err=str(err)))

    async def _remove_predecessor(self) -> None:
        """What ours replace, now that ours are in force."""
        settings = self._settings
        if not settings.adopt or not settings.packet_filter or settings.expect_npc:
            return
        try:
            for what in await weave_net.remove(settings.bridge):
                log.warning("host taken over", extra=kv(what=f"{what} removed"))
        except PlatformError as err:
            log.warning("rules of Weave Net not removed", extra=kv(err=str(err)))

    async def _follow_bridge(self, links: LinkEvents) -> None:
        started = False
        while True:
            patience_s = float("inf")
            try:
                found = await anyio.to_thread.run_sync(self._settle)
                self.on_links()
                joined = found is not None and found.joined
                if joined != self._firewall.rules.joined:
                    await self._firewall.change(joined=joined)
                if found is not None and not started:
                    await self._exposer.restore()
                    started = True
                elif found is not None:
                    await self._exposer.follow(found)
            except (NetlinkError, NftError) as err:
                log.error("bridge is not as it should be", extra=kv(err=str(err)))
                patience_s = _RETRY_S
            looked_at = anyio.current_time()
            with anyio.move_on_after(patience_s):
                await links.wait()
                await anyio.sleep(_SETTLE_S)
                await anyio.sleep_until(looked_at + _LOOK_S)

    def _settle(self) -> bridges.BridgeState | None:
        """Mend the settings; how the bridge was before, None if there is none. Blocking."""
        bridge = self._settings.bridge
        before = bridges.read(bridge)
        if before is None or before.kind != "bridge":
            return None
        if before.port_hairpin:
            log.warning(f'Hairpin mode enabled on "{PORT}"')  # noqa: G004  as the original
        changed = bridges.settle(bridge)
        if changed:
            self.bridge_changes += len(changed)
            log.info("bridge configured", extra=kv(reason=", ".join(changed)))
        return before

    async def _follow_wishes(self) -> None:
        while True:
            await self._wishes.wait()
            self._wishes = anyio.Event()
            try:
                if (ranges := self._wanted_ranges) is not None:
                    self._wanted_ranges = None
                    if (delta := self._owned.change(ranges)) is not None:
                        await self._firewall.change_local_ranges(delta)
                if (ports := self._wanted_ports) is not None:
                    self._wanted_ports = None
                    await self._firewall.change_ports(ports)
            except NftError as err:  # it stays wanted: the watch tries again
                log.error("packet filter not changed", extra=kv(err=str(err)))

    def _announce(self, interface: str, address: IPv4Interface) -> None:
        try:
            sock = announcing_socket(interface)
        except NetlinkError as err:  # it went away, and with it whom to tell
            log.debug("address not announced", extra=kv(addr=str(address), err=str(err)))
            return
        frame = gratuitous_arp(Mac(sock.getsockname()[4]), address.ip)
        self._announcer.announce(interface, sock, [frame])


def _nobody() -> None:
    """Nobody wants to know."""
