"""The two yardsticks: raw veth, and the kernel's VXLAN, between the first two hosts of a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from base.errors import ConfigError
from lab.container import Container

if TYPE_CHECKING:
    from lab.host import Host
    from lab.lab import Lab

VXLAN_OVERHEAD = 50
VXLAN_PORT = 4789
_BRIDGE_OPTIONS = "type bridge mcast_snooping 0"


def _ends(lab: Lab) -> tuple[Host, Host]:
    if len(lab.hosts) < 2:
        raise ConfigError("a reference pair needs a lab of at least 2 nodes")
    return lab.hosts[0], lab.hosts[1]


def _container(lab: Lab, host: Host, kind: str, number: int, mtu: int) -> Container:
    """Container on a bridge called ``kind`` that already has its way to the other host."""
    container = lab.new_container(
        host,
        f"{kind}{host.index}",
        mac=f"02:77:65:{number:02x}:{host.index:02x}:01",
        ipv4=f"10.{200 + number}.0.{host.index}/24",
        ipv6=f"fd77:6566:{number:x}::{host.index:x}/64",
    )
    host.ip(f"link set {container.port} master {kind} up")
    container.set_mtu(mtu)
    return container


def raw_pair(lab: Lab, mtu: int) -> tuple[Container, Container]:
    """Containers on bridges whose uplinks meet in a second bridge of the switch."""
    one, other = _ends(lab)
    lab.switch.ip(f"link add raw {_BRIDGE_OPTIONS}", "link set raw up")
    containers = []
    for host in (one, other):
        port = f"raw{host.index}"
        peer = f"name rawup mtu {mtu} netns {host.namespace.net_path}"
        lab.switch.ip(
            f"link add {port} mtu {mtu} type veth peer {peer}", f"link set {port} master raw up"
        )
        host.ip(
            f"link add raw {_BRIDGE_OPTIONS}",
            "link set rawup master raw up",
            "link set raw up",
        )
        containers.append(_container(lab, host, "raw", 1, mtu))
    return containers[0], containers[1]


def vxlan_pair(lab: Lab, underlay_mtu: int) -> tuple[Container, Container]:
    """Containers on bridges with a point-to-point VXLAN port each."""
    one, other = _ends(lab)
    mtu = underlay_mtu - VXLAN_OVERHEAD
    containers = []
    for host, far in ((one, other), (other, one)):
        path = f"local {host.address} remote {far.address} dstport {VXLAN_PORT} dev {host.uplink}"
        host.ip(
            f"link add vxlan {_BRIDGE_OPTIONS}",
            f"link add vxlan42 mtu {mtu} type vxlan id 42 {path}",
            "link set vxlan42 master vxlan up",
            "link set vxlan up",
        )
        containers.append(_container(lab, host, "vxlan", 2, mtu))
    return containers[0], containers[1]
