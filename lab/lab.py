"""A lab: hosts on a switch, in network namespaces, for the length of an ``async with``.

::

    c1 ══ bridge weave ── h1 ──eth0 ══ h1┐
    c2 ══ bridge weave ── h2 ──eth0 ══ h2├ bridge sw0 in namespace "switch"
    c3 ══ bridge weave ── h3 ──eth0 ══ h3┘

    async with Lab(nodes=3, topology="line") as lab:
        await lab.start_weft()
        one, other = lab.hosts[0].containers[0], lab.hosts[2].containers[0]
        print((await one.ping(other)).median_ms)

Nothing has a name outside: no entry in ``ip netns``, no device in the root namespace, no file.
Several labs run side by side. How everything is gone after the end, also after SIGKILL, is told in
lab/guardian.py; the end of the ``async with`` only makes it happen sooner.

Loss and partitions act on the switch, in the bridge's forward hook: a drop in a host's own output
would return EPERM to the sender, which no network does.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from itertools import combinations
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio import to_thread

from base.errors import WeftError
from lab import plan, preflight, references
from lab.container import Container
from lab.guest import Guest
from lab.host import Host
from lab.namespaces import Namespaces
from lab.node import SYSCTLS, Node
from lab.process import CommandError

MTU_MAX = 65535
SWITCH = "sw0"

_LOSS_STEPS = 1_000_000


class Lab:
    """See the module's head. Everything handed out lives until the end of the ``async with``.

    ``underlay_mtu`` is that of each host's uplink, ``switch_mtu`` that of the switch's ports,
    ``containers`` the number per host.

    Raises:
        ConfigError: not root, a tool is missing, or an argument is out of range.
        PlatformError: the kernel refuses something.
    """

    def __init__(
        self,
        nodes: int = 2,
        topology: str = "mesh",
        *,
        containers: int = 1,
        underlay_mtu: int = 1500,
        switch_mtu: int = MTU_MAX,
        underlay_offloads: bool = True,
    ) -> None:
        self.topology = plan.check(nodes, topology)
        self.nodes = nodes
        self.hosts: list[Host] = []
        self._containers_per_host = containers
        self._underlay_mtu = underlay_mtu
        self._switch_mtu = switch_mtu
        self._underlay_offloads = underlay_offloads
        self._loss = 0.0
        self._cut: set[frozenset[str]] = set()
        self._pairs: dict[str, tuple[Container, Container]] = {}
        self._namespaces: Namespaces | None = None
        self._switch: Node | None = None

    async def __aenter__(self) -> Self:
        preflight.check()
        try:
            await to_thread.run_sync(self._build)
            if not self._underlay_offloads:
                for host in self.hosts:
                    await host.set_underlay_offloads(on=False)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._close)

    @property
    def namespaces(self) -> Namespaces:
        """The owner of all namespaces; only inside the ``async with``."""
        if self._namespaces is None:
            raise RuntimeError("use a lab inside its `async with`")
        return self._namespaces

    @property
    def switch(self) -> Node:
        """The underlay's switch; only inside the ``async with``."""
        if self._switch is None:
            raise RuntimeError("use a lab inside its `async with`")
        return self._switch

    @property
    def containers(self) -> list[Container]:
        """All containers on the overlay, host by host."""
        return [container for host in self.hosts for container in host.containers]

    def _close(self) -> None:
        if self._namespaces is not None:
            self._namespaces.close()

    def _build(self) -> None:
        self._namespaces = Namespaces()
        self._switch = self.new_node("switch")
        self._switch.sysctl({"net/ipv6/conf/default/disable_ipv6": 1})
        self.hosts = [self._new_host(index) for index in range(1, self.nodes + 1)]
        mtu = self._switch_mtu
        lines = [
            f"link add {SWITCH} type bridge mcast_snooping 0",
            f"link set {SWITCH} mtu {mtu} up",
        ]
        for host in self.hosts:
            peer = f"name {host.uplink} mtu {self._underlay_mtu} netns {host.namespace.net_path}"
            lines.append(f"link add {host.port} mtu {mtu} type veth peer {peer}")
            lines.append(f"link set {host.port} master {SWITCH} up")
        lines.append(f"link set {SWITCH} mtu {mtu}")
        self._switch.ip(*lines)
        peers = plan.peers_file(self.nodes, self.topology)
        for host in self.hosts:
            self._fill_host(host, peers)

    def new_node(self, name: str) -> Node:
        """An empty namespace more, with the lab's system settings and loopback up."""
        return self._settle(Node(self.namespaces, self.namespaces.create(name)))

    @staticmethod
    def _settle(node: Node) -> Node:
        node.sysctl(SYSCTLS)
        node.ip("link set lo up")
        return node

    def _new_host(self, index: int) -> Host:
        namespace = self.namespaces.create(plan.host_name(index))
        host = Host(self.namespaces, namespace, index, self.switch)
        self._settle(host)
        return host

    def _fill_host(self, host: Host, peers: str) -> None:
        host.write_peers(peers)
        host.sysctl({f"net/ipv6/conf/{host.uplink}/disable_ipv6": 1})
        host.ip(
            f"addr add {host.address}/{plan.UNDERLAY_PREFIX_LEN} dev {host.uplink}",
            f"link set {host.uplink} up",
        )
        for number in range(1, self._containers_per_host + 1):
            self.add_container(host, number)

    def add_container(self, host: Host, number: int) -> Container:
        """Container ``number`` of ``host``, not yet a port of a bridge: Host.attach does that."""
        name = plan.container_name(host.index, number, self._containers_per_host)
        container = self.new_container(
            host,
            name,
            mac=plan.container_mac(host.index, number),
            ipv4=f"{plan.container_address(host.index, number)}/{plan.OVERLAY_PREFIX_LEN}",
            ipv6=f"{plan.container_address6(host.index, number)}/{plan.OVERLAY6_PREFIX_LEN}",
        )
        host.containers.append(container)
        return container

    def new_container(self, host: Host, name: str, *, mac: str, ipv4: str, ipv6: str) -> Container:
        """A namespace with a veth to ``host``, addresses with prefix length; on no bridge yet."""
        container = Container(
            self.namespaces,
            self.namespaces.create(name),
            host=host,
            port=f"vethwepl{name}"[:15],
            mac=mac,
            ipv4=ipv4.partition("/")[0],
            ipv6=ipv6.partition("/")[0],
        )
        inside = container.interface
        peer = f"name {inside} address {mac} netns {container.namespace.net_path}"
        container.sysctl(SYSCTLS)
        host.ip(f"link add {container.port} type veth peer {peer}")
        host.sysctl({f"net/ipv6/conf/{container.port}/disable_ipv6": 1})
        container.ip(
            "link set lo up",
            f"addr add {ipv4} dev {inside}",
            f"addr add {ipv6} dev {inside} nodad",
            f"link set {inside} up",
        )
        return container

    def new_guest(self, host: Host, name: str) -> Guest:
        """A running container without network on ``host``; ``weft attach`` gives it some."""
        guest = Guest(self.namespaces, self.namespaces.create(name), host)
        self._settle(guest)
        return guest

    async def start_weft(
        self,
        *options: str,
        mtu: int | Literal["auto"] = "auto",
        connect_timeout_s: float | None = 15.0,
        mesh: bool = False,
        password: str | None = None,
        cipher: str | None = None,
    ) -> None:
        """Start every router, attach all containers, wait until every container reaches all others.

        With ``mesh``, or a password, the hosts get one target each and find the others by
        themselves (line and ring: their neighbours, and no discovery); else the lab's peers file.
        ``connect_timeout_s`` None skips that last wait.

        Raises:
            WeftError: a router does not start, or a container stays unreachable.
        """
        failures: list[WeftError] = []
        joins = mesh or password is not None
        switches = ["--no-discovery"] if joins and self.topology != "mesh" else []

        async def start(host: Host) -> None:
            try:
                await host.start_weft(
                    *options,
                    *switches,
                    mtu=mtu,
                    peers=self.targets(host) if joins else None,
                    password=password,
                    cipher=cipher,
                )
            except WeftError as err:
                failures.append(err)

        async with anyio.create_task_group() as group:
            for host in self.hosts:
                group.start_soon(start, host)
        if failures:
            raise failures[0]
        if connect_timeout_s is not None:
            await self.wait_connected(connect_timeout_s)

    def targets(self, host: Host) -> list[str]:
        """Addresses that a host is given to connect to, by the lab's topology."""
        if self.topology == "mesh":
            return [] if host.index == 1 else [plan.underlay_address(1)]
        links = plan.links(self.nodes, self.topology)
        return [plan.underlay_address(one) for one, other in links if other == host.index]

    async def wait_connected(self, timeout_s: float = 15.0) -> None:
        """Wait until the first container reaches each other one and back.

        Raises:
            CommandError: naming the first pair that does not.
        """
        containers = self.containers
        for number, container in enumerate(containers):
            for other in containers[number + 1 :]:
                await _until_reachable(container, other, timeout_s)

    def set_loss(self, fraction: float) -> None:
        """Lose this fraction of what crosses the switch, in each direction alike."""
        self._loss = fraction
        self._apply_faults()

    def partition(self, one: Host, other: Host) -> None:
        """Cut the path between two hosts, both ways."""
        self._cut.add(frozenset({one.port, other.port}))
        self._apply_faults()

    def split(self, *groups: Iterable[Host]) -> None:
        """Cut every path between hosts of different groups."""
        for one, other in combinations([list(group) for group in groups], 2):
            self._cut |= {frozenset({left.port, right.port}) for left in one for right in other}
        self._apply_faults()

    def heal(self, one: Host | None = None, other: Host | None = None) -> None:
        """Mend the path between two hosts, or all paths."""
        if one is None or other is None:
            self._cut.clear()
        else:
            self._cut.discard(frozenset({one.port, other.port}))
        self._apply_faults()

    def dropped_by_switch(self) -> int:
        """Packets that loss and partitions have taken since the faults were last set."""
        if not self._loss and not self._cut:
            return 0
        listing = self.namespaces.tool(
            self.switch.namespace, ["nft", "list", "table", "bridge", "lab"]
        )
        return sum(int(number) for number in re.findall(r"counter packets (\d+)", listing))

    def set_switch_mtu(self, mtu: int) -> None:
        """MTU of the switch and its ports; below the hosts' this is a path that drops silently."""
        ports = [host.port for host in self.hosts]
        self.switch.ip(*(f"link set {port} mtu {mtu}" for port in [*ports, SWITCH]))

    def _apply_faults(self) -> None:
        preflight.check(("nft",))
        rules = ["add table bridge lab", "delete table bridge lab"]
        if self._loss or self._cut:
            rules += [
                "add table bridge lab",
                "add chain bridge lab forward { type filter hook forward priority 0; }",
            ]
        for ends in self._cut:
            one, other = sorted(ends)
            for source, target in ((one, other), (other, one)):
                rule = f'iifname "{source}" oifname "{target}" counter drop'
                rules.append(f"add rule bridge lab forward {rule}")
        chance = round(self._loss * _LOSS_STEPS)
        if chance:
            some = f"numgen random mod {_LOSS_STEPS} < {chance} " if chance < _LOSS_STEPS else ""
            rule = f"{some}counter drop"
            rules.append(f"add rule bridge lab forward {rule}")
        self.namespaces.tool(self.switch.namespace, ["nft", "-f", "-"], "\n".join(rules) + "\n")

    def raw_pair(self, mtu: int | None = None) -> tuple[Container, Container]:
        """Two containers, one on each of the first two hosts, joined by veth and bridges only.

        The reference for "no overlay at all": container, bridge of host, switch, bridge of host,
        container. Loss on the switch hits it too.
        """
        if "raw" not in self._pairs:
            self._pairs["raw"] = references.raw_pair(self, self._underlay_mtu)
        return _with_mtu(self._pairs["raw"], mtu)

    def vxlan_pair(self, mtu: int | None = None) -> tuple[Container, Container]:
        """Two containers joined by the kernel's VXLAN between the first two hosts' uplinks."""
        if "vxlan" not in self._pairs:
            self._pairs["vxlan"] = references.vxlan_pair(self, self._underlay_mtu)
        return _with_mtu(self._pairs["vxlan"], mtu)

    def facts(self) -> dict[str, Any]:
        """What a reader of measurements must know about this lab and machine."""
        sysctls = {
            name: self.hosts[0].read(f"/proc/sys/{name}") for name in SYSCTLS if "bridge" in name
        }
        return {
            "kernel": platform.release(),
            "nodes": self.nodes,
            "topology": self.topology,
            "underlay_mtu": self._underlay_mtu,
            "switch_mtu": self._switch_mtu,
            "underlay_offloads": self._underlay_offloads,
            "loss": self._loss,
            **sysctls,
        }


def _with_mtu(pair: tuple[Container, Container], mtu: int | None) -> tuple[Container, Container]:
    if mtu is not None:
        for container in pair:
            container.set_mtu(mtu)
    return pair


async def _until_reachable(one: Container, other: Container, timeout_s: float) -> None:
    deadline = anyio.current_time() + timeout_s
    while True:
        # Short waits: a first packet may be lost while the other end's router is still starting.
        result = await one.ping(other, count=1, wait_s=0.5)
        if result.ok:
            return
        if anyio.current_time() > deadline:
            raise CommandError(f"{one.name} does not reach {other.name} within {timeout_s:g} s")
