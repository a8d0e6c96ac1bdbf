"""What a stopped Weave Net leaves is recognised and removed; what looks like it stays."""

from __future__ import annotations

import anyio
import pytest
from pyroute2 import IPSet

from control.host import doctor, reset, weave_net
from control.host.doctor import DoctorOptions
from tests.control.netns_host import sh
from tests.native.namespace import in_new_netns

#: Every rule of node specification 5.1, with and without a policy controller.
FILTER = """
-N WEAVE-NPC
-N WEAVE-NPC-EGRESS
-N WEAVE-EXPOSE
-N WEAVE-CANARY
-A INPUT -i docker0 -d 172.17.0.1/32 -p tcp -m tcp --dport 6783 -j DROP
-A INPUT -i docker0 -d 172.17.0.1/32 -p udp -m udp --dport 6784 -j DROP
-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -m addrtype ! --src-type LOCAL -m conntrack \
 ! --ctstate RELATED,ESTABLISHED -m comment --comment "some words" -j DROP
-A INPUT -i weave -j WEAVE-NPC-EGRESS
-A FORWARD -i docker0 -o weave -j DROP
-A FORWARD -i weave -m comment --comment "before '-j KUBE'" -j WEAVE-NPC-EGRESS
-A FORWARD -o weave -m comment --comment "before" -j WEAVE-NPC
-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o weave -j DROP
-A FORWARD -i weave -o weave -j ACCEPT
-A FORWARD -i weave ! -o weave -j ACCEPT
-A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o weave -j WEAVE-EXPOSE
-A WEAVE-EXPOSE -d 10.32.0.0/12 -j ACCEPT
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
"""
NAT = """
-N WEAVE
-N WEAVE-CANARY
-A POSTROUTING -j WEAVE
-A POSTROUTING -o weave -j ACCEPT
-A WEAVE -s 10.32.0.0/12 -d 224.0.0.0/4 -j RETURN
-A WEAVE -s 10.32.0.0/12 ! -d 10.32.0.0/12 -j MASQUERADE
"""
#: Somebody else's.
OTHERS = """
-N KUBE-FORWARD
-A INPUT -i docker0 -p udp -m udp --dport 53 -j ACCEPT
-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -j ACCEPT
-A FORWARD -i weave -j ACCEPT
-A FORWARD -o weave -s 192.0.2.1/32 -j DROP
-A FORWARD -o weave2 -j DROP
-A FORWARD -m comment --comment "-j WEAVE" -j KUBE-FORWARD
"""


def install(tool: str, table: str, rules: str) -> None:
    for line in rules.replace("\\\n", "").strip().splitlines():
        sh(f"{tool} -w -t {table} {line}")


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_its_rules_go_and_others_stay(tool: str) -> None:
    @in_new_netns
    def run() -> None:
        install(tool, "filter", OTHERS)
        sh(f"{tool} -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE")
        sh(f"{tool} -t mangle -A FORWARD -j ACCEPT")
        before = state(tool)
        install(tool, "filter", FILTER)
        install(tool, "nat", NAT)
        install(tool, "mangle", "-N WEAVE-CANARY")
        assert reset.clean("weave") == [f"rules of Weave Net in {tool}"]
        assert state(tool) == before
        assert reset.clean("weave") == []

    run()


def state(tool: str) -> list[str]:
    return [sh(f"{tool} -t {table} -S") for table in weave_net.TABLES]


@in_new_netns
def test_nothing_is_touched_where_it_never_was() -> None:
    install("iptables-nft", "filter", "-A FORWARD -o weave -j DROP")
    before = sh("nft list ruleset")
    assert reset.clean("weave") == []
    assert sh("nft list ruleset") == before
    assert sh("cat /proc/net/ip_tables_names") == ""


@in_new_netns
def test_sets() -> None:
    with IPSet() as ipset:
        for name in ("weaver-no-masq-local", "weave-k?Z;25^M}|1s7P3|H9i;*;MhG", "mine", "weaver"):
            ipset.create(name, stype="hash:net")
    assert anyio.run(weave_net.leftovers) == [
        "ipset weaver-no-masq-local",
        "ipset weave-k?Z;25^M}|1s7P3|H9i;*;MhG",
    ]
    checks = doctor.examine(DoctorOptions.of("weave", None, ()))
    (check,) = (check for check in checks if check.name == "Weave Net")
    assert check.state == doctor.WARN
    reset.clean("another")
    assert len(anyio.run(weave_net.leftovers)) == 2
    reset.clean("weave")
    with IPSet() as ipset:
        assert {each.get_attr("IPSET_ATTR_SETNAME") for each in ipset.list()} == {"mine", "weaver"}


def test_any_text_is_planned() -> None:
    assert weave_net.plan("", "weave") == []
    assert weave_net.plan('-N WEAVE\n-A FORWARD -j\n-A "\n-A X !\n-A FORWARD', "weave") == [
        ["-F", "WEAVE"],
        ["-X", "WEAVE"],
    ]
