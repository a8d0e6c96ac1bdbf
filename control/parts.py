"""What a control process consists of, made from its options and joined together.

Made in this order: options checked, state opened and name settled, host looked at, allocator
restored with the addresses found in use. Started in this order: addresses, the host's side with
its packet filter, containers; membership is the daemon's last step. With a peers file there is
membership alone.

Source of truth: node specification 7 (start-up order).
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from anyio.abc import TaskGroup

from base.errors import ConfigError
from base.names import PeerName
from control.addresses import EXPOSE_IDENT
from control.adopt.take_over import Adoption, open_state
from control.attachment_service import AttachmentService
from control.cli.node_options import ControlOptions
from control.host import bridge as bridges
from control.host.files import HostFiles
from control.host.foreign import Backend
from control.host.service import HostService, HostSettings, loopback_ports
from control.identity import (
    bridge_mac,
    choose_name,
    parse_name,
    random_name,
    settle_name,
    weave_name,
)
from control.ipam_addresses import IpamAddresses
from control.ipam_channel import MeshChannel
from control.ipam_service import IpamService
from control.ipam_settings import parse_ipam
from control.ipam_store import IpamStore
from control.mesh_service import MeshService, MeshSettings, parse_subnets
from control.password import take_password
from control.service import Service
from control.state import StateStore
from control.static_service import StaticService
from crypto.ciphers import offer
from ipam.address import Range
from ipam.store import Holding

#: Names of the ciphers to offer, for tests and comparisons; unset: what this CPU does best.
CIPHERS_VARIABLE: Final = "WEFT_CIPHERS"


@dataclass(slots=True, frozen=True)
class Parts:
    """``ipam`` None without a range; all but ``service`` None with a peers file."""

    service: Service
    ipam: IpamService | None = None
    containers: AttachmentService | None = None
    host: HostService | None = None

    @classmethod
    def of(cls, options: ControlOptions, held: contextlib.ExitStack) -> Parts:
        """Make them; what has to be closed goes on ``held``. Blocking.

        Raises:
            ConfigError: an option, the state or the peers file is wrong.
        """
        if options.static is not None:
            return cls(StaticService(options.static, options.name, options.nickname, options.port))
        allocation = parse_ipam(
            options.ipalloc_range or "", options.ipalloc_default_subnet, options.ipalloc_init
        )
        files = HostFiles.of(options.host_root, options.proc_path)
        settings = _host_settings(options)
        universe = None if allocation is None else allocation.universe.range
        mesh, store, name = _mesh(options, files, universe, held)
        handed_out = IpamStore(store)
        containers = AttachmentService(
            store,
            options.bridge,
            files,
            holder=handed_out.holder,
            legacy_names=options.legacy_veth_names,
        )
        held.callback(containers.close)
        if allocation is None:
            return cls(mesh, None, containers, HostService(settings))
        ours = mesh.node.core.options
        ipam = IpamService(
            allocation.options(name, ours.nick, ours.uid),
            handed_out,
            containers.holdings(),
            _on_bridge(options.bridge),
        )
        channel = MeshChannel(mesh.node, ipam.allocator, ipam.wake)
        ipam.attach(channel)
        channel.unresolved = lambda: mesh.unresolved
        mesh.on_topology = channel.topology_changed
        host = HostService(settings, IpamAddresses(ipam))
        ipam.on_ranges = host.set_local_ranges
        return cls(mesh, ipam, containers, host)

    async def start(self, tasks: TaskGroup) -> None:
        """Addresses, then who needs them: the bridge's own ones, and containers."""
        if self.ipam is not None:
            await tasks.start(self.ipam.run)
        if self.host is not None:
            await tasks.start(self.host.run)
        if self.containers is not None:
            addresses = None if self.ipam is None else IpamAddresses(self.ipam)
            if self.host is not None:
                self.containers.attachments.watch(self.host.set_ports)
                self.host.on_links = self.containers.look_at_bridges
            await tasks.start(self.containers.run, addresses)


def _mesh(
    options: ControlOptions,
    files: HostFiles,
    universe: Range | None,
    held: contextlib.ExitStack,
) -> tuple[MeshService, StateStore, PeerName]:
    password = take_password(options.password_file, os.environ)
    subnets = parse_subnets(options.trusted_subnets)
    given = None if options.name is None else parse_name(options.name)
    fresh = partial(weave_name, files) if options.adopt else random_name
    adoption = None
    if options.adopt:
        bridge = bridge_mac(options.bridge)
        adoption = Adoption(
            files, options.adopt_db, lambda left: choose_name(given, bridge, left, fresh), universe
        )
    elif options.adopt_db is not None:
        raise ConfigError("--adopt-db: it is taken over with --adopt; give both")
    store = held.enter_context(open_state(options.db_prefix, adoption))
    name = settle_name(store, given, options.bridge, fresh)
    settings = MeshSettings(
        nickname=options.nickname,
        name=name,
        host=options.host,
        port=options.port,
        peers=tuple(options.peers or ()),
        resume=options.resume,
        discovery=not options.no_discovery,
        conn_limit=options.conn_limit,
        version_min=options.min_protocol_version,
        trusted_subnets=subnets,
        ciphers=os.environ.get(CIPHERS_VARIABLE) or offer(),
    )
    return MeshService(settings, password, store), store, name


def _on_bridge(bridge: str) -> list[Holding]:
    """Addresses that the bridge has; they are the host's own."""
    # netlink's library cannot be called where a loop runs
    with ThreadPoolExecutor(1) as pool:
        state = pool.submit(bridges.read, bridge).result()
    return [
        Holding(int(each.ip), each.network.prefixlen, EXPOSE_IDENT, is_container=False)
        for each in (() if state is None else state.addresses)
    ]


def _host_settings(options: ControlOptions) -> HostSettings:
    return HostSettings(
        bridge=options.bridge,
        router_port=options.port,
        control_ports=loopback_ports(options.http_addr),
        no_masq_local=options.no_masq_local,
        expect_npc=options.expect_npc,
        pods_to_router=options.allow_pods_to_router,
        docker_bridge=options.docker_bridge,
        port_security=options.port_security,
        backend=Backend.of(os.environ),
        packet_filter=not options.no_packet_filter,
        adopt=options.adopt,
    )
