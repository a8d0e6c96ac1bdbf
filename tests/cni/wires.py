"""A host and containers for tests of attachments: the test's own namespace, and more of them."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from cni.attach import Attacher, Wanted
from cni.netns import Netns
from cni.requests import Interface
from lab.syscalls import CLONE_NEWNET, unshare

BRIDGE_MTU = 1410


def interface(text: str) -> Interface:
    return ipaddress.ip_interface(text)


def new_netns(path: str = "") -> Netns:
    """A namespace without a name; it lives as long as it is open or somebody is in it."""
    made: list[Netns] = []

    def make() -> None:
        unshare(CLONE_NEWNET)
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            made.append(Netns.from_fd(fd, path))
        finally:
            os.close(fd)

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    return made[0]


def ip_json(*words: str) -> list[dict[str, Any]]:
    """What ``ip`` tells of the caller's namespace."""
    argv = ["ip", "-json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def make_bridge(name: str = "weave", *addresses: str, mtu: int = BRIDGE_MTU) -> None:
    lines = [
        f"link add {name} address 7a:9f:eb:b6:0c:6e type bridge mcast_snooping 0",
        f"link set {name} mtu {mtu} up",
        *(f"addr add {address} dev {name}" for address in addresses),
    ]
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True, timeout=20)


def run_in(netns: Netns, *argv: str) -> str:
    """What a tool prints inside."""

    def run() -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout

    return netns.run(run)


def answers(netns: Netns, address: str) -> bool:
    """Whether one ping, and one only, is answered."""

    def run() -> bool:
        argv = ["ping", "-n", "-c", "1", "-W", "5", address]
        return subprocess.run(argv, capture_output=True, check=False, timeout=20).returncode == 0

    return netns.run(run)


def links_here() -> set[str]:
    return {found["ifname"] for found in ip_json("link")}


def links_in(netns: Netns) -> set[str]:
    return netns.run(links_here)


def addresses_in(netns: Netns, ifname: str = "ethwe") -> list[str]:
    """IPv4 addresses of an interface."""
    (found,) = netns.run(lambda: ip_json("-4", "addr", "show", ifname)) or [{"addr_info": []}]
    return [f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"]]


def routes_in(netns: Netns) -> list[str]:
    return [line.strip() for line in run_in(netns, "ip", "route").splitlines()]


def sysctl_in(netns: Netns, path: str) -> str:
    return netns.run(lambda: Path("/proc/sys/net", path).read_text(encoding="ascii").strip())


def brport(ifname: str, name: str) -> str:
    """A setting of a bridge's port, from the kernel and not /sys, which shows another namespace."""
    (found,) = ip_json("-d", "link", "show", ifname)
    return str(found["linkinfo"]["info_slave_data"][name])


class Wire:
    """A bridge and what it takes to attach containers to it."""

    def __init__(self) -> None:
        self.attacher = Attacher()
        self._namespaces: list[Netns] = []

    @classmethod
    @contextmanager
    def up(cls, *addresses: str) -> Iterator[Self]:
        make_bridge("weave", *addresses)
        wire = cls()
        try:
            yield wire
        finally:
            wire.attacher.close()
            for netns in wire._namespaces:
                netns.close()

    def netns(self) -> Netns:
        made = new_netns()
        self._namespaces.append(made)
        return made

    def container(self, name: str, *addresses: str) -> Netns:
        """A new container with addresses."""
        made = self.netns()
        self.attacher.attach(made, Wanted(name, tuple(map(interface, addresses))))
        return made
