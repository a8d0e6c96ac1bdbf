"""Named checks of everything on the host that a node depends on, each with a remedy.

Nothing is changed, and no running node is needed. ``fail``: it cannot work so; ``warn``: it will
not work well, or not for all. Source of truth: node specification 2.4, 5, 13, 14.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from base.errors import ConfigError, PlatformError
from control.host import bridge as bridges
from control.host import foreign, nft, overlap, ruleset, weave_net
from control.host.checks import forwards, sysctl
from control.host.devices import FAST_DATAPATH, PACKET_END, PORT
from control.host.files import PROC, HostFiles

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"

DEFAULT_RANGE: Final = "10.32.0.0/12"
_NAME_LEN: Final = 16
_REACHABLE_MS: Final = "5000"
_NETWORK_MANAGER: Final = "/run/NetworkManager"
_NETWORK_MANAGER_CONF: Final = ("/etc/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d")


@dataclass(slots=True, frozen=True)
class Check:
    """One result. ``remedy`` "" when there is nothing to do."""

    name: str
    state: str
    detail: str
    remedy: str = ""

    def line(self) -> str:
        """For people; a remedy is on a line of its own."""
        text = f"{self.state:<5} {self.name:<{_NAME_LEN}} {self.detail}"
        return f"{text}\n{'':<{_NAME_LEN + 7}}→ {self.remedy}" if self.remedy else text

    def record(self) -> dict[str, str]:
        """For JSON."""
        return {
            "Name": self.name,
            "State": self.state,
            "Detail": self.detail,
            "Remedy": self.remedy,
        }


@dataclass(slots=True, frozen=True)
class DoctorOptions:
    """What to look for, and where the host's ``files`` are.

    ``range_`` is that of the overlay, ``allowed`` routes may overlap it.
    """

    bridge: str
    range_: IPv4Network
    allowed: tuple[IPv4Network, ...] = ()
    files: HostFiles = field(default_factory=HostFiles)

    @classmethod
    def of(
        cls, bridge: str, range_: str | None, allowed: Iterable[str], host_root: str = ""
    ) -> DoctorOptions:
        """From the command line.

        Raises:
            ConfigError: something is no network, or the host's root no folder.
        """
        return cls(
            bridge,
            _network("--ipalloc-range", range_ or DEFAULT_RANGE),
            tuple(_network("--allow-overlap", each) for each in allowed),
            HostFiles.of(host_root, PROC),
        )


def examine(options: DoctorOptions) -> list[Check]:
    """All checks, in order; one that cannot be made says so. Blocking."""
    return anyio.run(_examine, options)


async def _examine(options: DoctorOptions) -> list[Check]:
    checks = [_privilege(), _forwarding(), _tun(), *_network_manager(options.files)]
    checks += await _guarded("bridge", _bridge, options)
    checks += await _guarded("predecessor", _predecessor, options)
    checks += await _guarded("packet filter", _packet_filter, options)
    checks += await _guarded("forward policy", _forward_policy, options)
    checks += await _guarded("iptables", _iptables, options)
    checks += await _guarded("Weave Net", _weave_net, options)
    checks += await _guarded("overlap", _overlap, options)
    return checks


async def _guarded(
    name: str, look: Callable[[DoctorOptions], Awaitable[list[Check]]], options: DoctorOptions
) -> list[Check]:
    try:
        return await look(options)
    except PlatformError as err:
        return [Check(name, FAIL, str(err), "see the message")]


# Checks ------------------------------------------------------------------------------------------


def _privilege() -> Check:
    if os.geteuid() == 0:
        return Check("privilege", OK, "root")
    return Check("privilege", WARN, "not root: some checks see nothing", "run it as root")


def _forwarding() -> Check:
    if forwards():
        return Check("ip_forward", OK, "the host forwards packets")
    return Check(
        "ip_forward",
        FAIL,
        "net.ipv4.ip_forward is 0: nothing goes between the overlay and other networks",
        "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d",
    )


def _tun(device: Path = Path("/dev/net/tun")) -> Check:
    if device.exists():
        return Check("tun", OK, f"{device} is there")
    return Check(
        "tun", FAIL, f"no {device}: frames cannot be captured", "modprobe tun, or --capture packet"
    )


def _network_manager(files: HostFiles) -> list[Check]:
    if not Path(files.path(_NETWORK_MANAGER)).exists():
        return []
    for folder in (Path(files.path(each)) for each in _NETWORK_MANAGER_CONF):
        for file in sorted(folder.glob("*.conf")) if folder.is_dir() else ():
            if "vethwe" in file.read_text(encoding="utf-8", errors="replace"):
                return [Check("NetworkManager", OK, f"{file} leaves our links alone")]
    return [
        Check(
            "NetworkManager",
            WARN,
            "it runs here and may adopt the bridge and its ports",
            f"copy deploy/systemd/70-weft-networkmanager.conf to {_NETWORK_MANAGER_CONF[0]}",
        )
    ]


async def _bridge(options: DoctorOptions) -> list[Check]:
    name = options.bridge
    state = await anyio.to_thread.run_sync(bridges.read, name)
    if state is None:
        return [Check("bridge", OK, f"no {name} yet; the router makes it")]
    if state.kind != "bridge":
        remedy = "name another with --weave-bridge"
        return [Check("bridge", FAIL, f"{name} is a {state.kind or 'plain link'}", remedy)]
    restart = "weft launch sets it right"
    checks = [
        _either(state.up, "bridge", f"{name} is up", f"{name} is down", FAIL, restart),
        _either(
            state.nf_call,
            "bridge-nf",
            "bridged packets pass iptables",
            "bridged packets pass iptables by: services and policy of pods on one node fail",
            FAIL,
            f"modprobe br_netfilter; ip link set {name} type bridge nf_call_iptables 1",
        ),
        _either(
            not state.stp,
            "spanning tree",
            "off",
            "on: ports take 30 s to forward",
            WARN,
            f"ip link set {name} type bridge stp_state 0",
        ),
        _either(
            not state.snooping,
            "snooping",
            "multicast reaches every host",
            "on: with a querier multicast stays on this host",
            WARN,
            f"ip link set {name} type bridge mcast_snooping 0",
        ),
        _either(
            sysctl(f"net.ipv6.conf.{name}.accept_ra") in ("0", None),
            "accept_ra",
            "router advertisements from containers are ignored",
            "a container can give this host an IPv6 route (CVE-2020-11091)",
            FAIL,
            f"sysctl -w net.ipv6.conf.{name}.accept_ra=0",
        ),
        _either(
            sysctl(f"net.ipv4.neigh.{name}.base_reachable_time_ms") == _REACHABLE_MS,
            "neighbours",
            "moved containers are noticed soon",
            "not those that notice moved containers soon",
            WARN,
            restart,
        ),
    ]
    if state.port_hairpin is not None:
        checks.append(
            _either(
                not state.port_hairpin,
                "hairpin",
                f"off on {PORT}",
                f"on on {PORT}: frames come back to the router",
                FAIL,
                f"bridge link set dev {PORT} hairpin off",
            )
        )
    return checks


async def _predecessor(_: DoctorOptions) -> list[Check]:
    """What a Weave Net router has left; its container links and the bridge are used on."""
    name = "predecessor"
    found = await anyio.to_thread.run_sync(bridges.predecessor)
    remedy = "stop Weave Net, then weft launch --adopt, once; containers stay attached"
    left = [PORT] if found.pair and found.other_end != PACKET_END else []
    left += [FAST_DATAPATH] if found.datapath else []
    if left:
        return [Check(name, FAIL, f"{' and '.join(left)} of Weave Net's fast datapath", remedy)]
    if found.pair and not found.is_read:
        detail = (
            f"{PORT} is a veth that nobody reads: of Weave Net, or of weft launch --capture packet"
        )
        return [Check(name, WARN, detail, f"if of Weave Net: {remedy}")]
    return [Check(name, OK, "no other router's port in the way")]


async def _packet_filter(options: DoctorOptions) -> list[Check]:
    if not nft.have_nft():
        return [Check("packet filter", FAIL, "nft is not installed", "install nftables")]
    table = ruleset.table_name(options.bridge)
    listing = await nft.list_table(ruleset.FAMILY, table)
    if listing is None:
        detail, remedy = f"no table ip {table}", "weft launch installs it"
        return [Check("packet filter", WARN, detail, remedy)]
    chains = {each["chain"]["name"] for each in listing if "chain" in each}
    missing = {"postrouting", "forward", "input"} - chains
    return [
        _either(
            not missing,
            "packet filter",
            f"table ip {table} with {len(nft.comments(listing))} rules",
            f"table ip {table} lacks {', '.join(sorted(missing))}",
            FAIL,
            "weft launch puts it back; find out who removes it with: nft monitor",
        )
    ]


async def _forward_policy(options: DoctorOptions) -> list[Check]:
    closed = await foreign.closed_chains(options.bridge)
    if not closed:
        return [Check("forward policy", OK, "nobody drops what the overlay forwards")]
    remedy = (
        "weft launch adds a pair of accept rules, unless IPTABLES_BACKEND says otherwise; for"
        f" firewalld: firewall-cmd --permanent --zone=trusted --add-interface={options.bridge}"
    )
    return [Check("forward policy", FAIL, f"dropped by {', '.join(closed)}", remedy)]


async def _iptables(_: DoctorOptions) -> list[Check]:
    chains = {
        (each["chain"]["family"], each["chain"]["table"])
        for each in (await nft.list_chains() if nft.have_nft() else ())
    }
    mixed = foreign.legacy_in_use() and ("ip", "filter") in chains
    return [
        _either(
            not mixed,
            "iptables",
            "one kind in use",
            "iptables-legacy and iptables-nft both hold rules: packets must please both",
            WARN,
            "move all software to one of them, then empty the other",
        )
    ]


async def _weave_net(_: DoctorOptions) -> list[Check]:
    found = await weave_net.leftovers()
    if not found:
        return [Check("Weave Net", OK, "nothing of it here")]
    remedy = "if it does not run here any more: weft launch --adopt, once, removes it"
    return [Check("Weave Net", WARN, f"left here: {', '.join(found)}", remedy)]


async def _overlap(options: DoctorOptions) -> list[Check]:
    routes = await anyio.to_thread.run_sync(overlap.host_routes, (options.bridge,))
    try:
        overlap.check_range(options.range_, routes, options.allowed)
    except overlap.OverlapError as err:
        detail, _, remedy = str(err).partition("; ")
        return [Check("overlap", FAIL, detail, remedy)]
    return [Check("overlap", OK, f"no route of this host into {options.range_}")]


def _either(good: bool, name: str, yes: str, no: str, otherwise: str, remedy: str) -> Check:
    return Check(name, OK, yes) if good else Check(name, otherwise, no, remedy)


def _network(option: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as err:
        raise ConfigError(f"{option}: {err}; write a network such as {DEFAULT_RANGE}") from err
