"""weft doctor finds what is broken; clean-up leaves nothing of ours and all that is not."""

from __future__ import annotations

import json
import socket
from ipaddress import IPv4Interface
from pathlib import Path

import anyio
import pytest

from base.errors import ConfigError, NetlinkError
from control.host import doctor, reset
from control.host.doctor import DoctorOptions
from control.host.firewall import Firewall
from control.host.ports import Port
from control.host.ruleset import Exposed, HostRules
from tests.control.netns_host import ruleset, sh
from tests.control.processes import weft
from tests.native.namespace import in_new_netns

WELL = (
    "ip link add weave type bridge mcast_snooping 0 nf_call_iptables 1; ip link set weave up;"
    "ip tuntap add vethwe-bridge mode tap;"
    "ip link set vethwe-bridge master weave;"
    "echo 0 > /proc/sys/net/ipv6/conf/weave/accept_ra;"
    "echo 5000 > /proc/sys/net/ipv4/neigh/weave/base_reachable_time_ms;"
    "echo 1 > /proc/sys/net/ipv4/ip_forward"
)
FULL = HostRules(exposed=(Exposed(IPv4Interface("10.32.0.1/12")),))
PORTS = {
    name: Port(addresses=(IPv4Interface(address),))
    for name, address in (("vethwepl1", "10.1.0.1/24"), ("vethwepl2", "10.2.0.1/24"))
}


def install(rules: HostRules = FULL) -> None:
    async def run() -> None:
        firewall = Firewall(rules)
        await firewall.reconcile()
        await firewall.change_ports(PORTS)

    anyio.run(run)


def found(*allowed: str) -> dict[str, str]:
    checks = doctor.examine(DoctorOptions.of("weave", None, allowed))
    assert all(check.remedy or check.state == doctor.OK for check in checks)
    return {check.name: check.state for check in checks if check.state != doctor.OK}


@in_new_netns
def test_a_healthy_host() -> None:
    sh(WELL)
    install()
    assert found() == {}
    done = weft("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all is well\n")


def test_network_manager_is_looked_for_on_the_host(tmp_path: Path) -> None:
    def said() -> list[tuple[str, str]]:
        checks = doctor.examine(DoctorOptions.of("none", None, (), str(tmp_path)))
        return [(each.state, each.detail) for each in checks if each.name == "NetworkManager"]

    assert said() == []
    (tmp_path / "run" / "NetworkManager").mkdir(parents=True)
    ((state, _),) = said()
    assert state == doctor.WARN
    (tmp_path / "etc" / "NetworkManager" / "conf.d").mkdir(parents=True)
    conf = tmp_path / "etc" / "NetworkManager" / "conf.d" / "70-weft.conf"
    conf.write_text("unmanaged-devices=interface-name:vethwe*\n")
    assert said() == [(doctor.OK, f"{conf} leaves our links alone")]


STRICT = (
    "nft add table inet x; nft add chain inet x f"
    " '{ type filter hook forward priority 0; policy drop; }'"
)
ROUTE = (
    "ip link add va type veth peer name vb; ip link set va up; ip link set vb up;"
    "ip route add 10.40.0.0/16 dev va"
)
NO_TAP = "ip link del vethwe-bridge"
BROKEN = [
    ("echo 0 > /proc/sys/net/ipv4/ip_forward", "ip_forward", "fail"),
    ("ip link set weave down", "bridge", "fail"),
    ("ip link set weave type bridge stp_state 1", "spanning tree", "warn"),
    ("ip link set weave type bridge mcast_snooping 1", "snooping", "warn"),
    ("echo 1 > /proc/sys/net/ipv6/conf/weave/accept_ra", "accept_ra", "fail"),
    ("echo 9 > /proc/sys/net/ipv4/neigh/weave/base_reachable_time_ms", "neighbours", "warn"),
    ("bridge link set dev vethwe-bridge hairpin on", "hairpin", "fail"),
    ("nft delete table ip weave", "packet filter", "warn"),
    ("nft flush chain ip weave input; nft delete chain ip weave input", "packet filter", "fail"),
    ("iptables-nft -P FORWARD DROP", "forward policy", "fail"),
    ("iptables-legacy -P FORWARD DROP", "forward policy", "fail"),
    (STRICT, "forward policy", "fail"),
    ("iptables-legacy -L; iptables-nft -N x", "iptables", "warn"),
    (ROUTE, "overlap", "fail"),
    (f"{NO_TAP}; ip link add vethwe-bridge type veth peer vethwe-pcap", "predecessor", "warn"),
    (f"{NO_TAP}; ip link add vethwe-bridge type veth peer vethwe-datapath", "predecessor", "fail"),
    ("ip link add datapath type veth peer x", "predecessor", "fail"),
]


@pytest.mark.parametrize(("damage", "name", "state"), BROKEN)
def test_what_is_broken_is_found(damage: str, name: str, state: str) -> None:
    @in_new_netns
    def run() -> None:
        sh(WELL)
        install()
        sh(damage)
        assert found() == {name: state}

    run()


@in_new_netns
def test_a_pair_that_a_router_reads_is_well() -> None:
    sh(WELL)
    install()
    sh(f"{NO_TAP}; ip link add vethwe-bridge type veth peer vethwe-pcap")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as reader:
        reader.bind(("vethwe-pcap", 3))
        assert found() == {}


@in_new_netns
def test_bridge_netfilter() -> None:
    sh(WELL)
    install()
    sh("ip link set weave type bridge nf_call_iptables 0")
    sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    assert found() == {"bridge-nf": "fail"}
    sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    assert found() == {}


@in_new_netns
def test_on_the_command_line() -> None:
    sh("ip link add va type veth peer name weave")
    done = weft("doctor", "--json")
    assert done.returncode == 1
    checks = json.loads(done.stdout)
    (bridge,) = (check for check in checks if check["Name"] == "bridge")
    assert (bridge["State"], bridge["Detail"]) == ("fail", "weave is a veth")
    done = weft("doctor", "--ipalloc-range", "10.32.0.1/12")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("weft: --ipalloc-range: 10.32.0.1/12 has host bits set; ")


@in_new_netns
def test_an_overlap_that_is_allowed() -> None:
    sh(WELL + ";ip link add va type veth peer name vb; ip link set vb up;")
    sh("ip addr add 10.40.0.1/16 dev va; ip link set va up")
    install()
    assert found() == {"overlap": "fail"}
    assert found("10.40.0.0/16") == {}


def test_options() -> None:
    with pytest.raises(ConfigError, match="--allow-overlap"):
        DoctorOptions.of("weave", None, ["x"])


# ---- clean-up ----


@in_new_netns
def test_clean_leaves_nothing_of_ours_and_all_of_the_others() -> None:
    sh(
        "nft add table ip other; nft add chain ip other c"
        " '{ type filter hook forward priority 5; policy drop; }'; nft add rule ip other c accept;"
        "iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP;"
        "iptables-nft -A FORWARD -s 192.0.2.1 -j ACCEPT; ip link add br0 type bridge;"
        "ip link add foreign type veth peer name foreign1; ip link set foreign master br0"
    )
    rules, legacy, links = ruleset(), sh("iptables-legacy -S"), names()
    sh(
        f"{WELL}; ip link add vethwepl1 type veth peer name c1; ip link set vethwepl1 master weave;"
        "ip link del vethwe-bridge; ip tuntap add vethwe-bridge mode tap;"
        "ip link set vethwe-bridge master weave;"
        "ip link add vethwedu type veth peer name vethwedu1;"
        "ip link add vethweblbr0 type veth peer name vethwebgbr0;"
        "ip link set vethweblbr0 master weave; ip link set vethwebgbr0 master br0;"
        # one whose bridge of ours is gone already
        "ip link add vethweblbr1 type veth peer name vethwebgbr1;"
        "ip link set vethwebgbr1 master br0"
    )
    install()
    sh("nft add table inet weave_npc")
    removed = reset.clean("weave")
    assert (ruleset(), sh("iptables-legacy -S"), names()) == (rules, legacy, links)
    assert "link weave" in removed
    assert "table ip weave" in removed
    assert reset.clean("weave") == []


@in_new_netns
def test_clean_leaves_another_bridge_alone() -> None:
    sh(WELL)
    install()
    sh(
        "ip link add other type bridge; ip link add vethwepl9 type veth peer name c9;"
        "ip link set vethwepl9 master other"
    )
    install(HostRules(bridge="other"))
    reset.clean("other")
    assert {"weave", "vethwe-bridge"} <= names()
    assert not {"other", "vethwepl9", "c9"} & names()
    assert "table ip weave " in ruleset()
    assert "weave-other" not in ruleset()


@in_new_netns
def test_clean_refuses_what_is_no_bridge() -> None:
    sh("ip link add weave type veth peer name x; nft add table ip weave")
    with pytest.raises(NetlinkError, match="it is no bridge; it is left alone"):
        reset.clean("weave")
    assert "weave" in names()
    assert ruleset() == ""


def names() -> set[str]:
    return {line.split(":")[1].strip().partition("@")[0] for line in sh("ip -o link").splitlines()}
