"""The transactions as data: what is in them for which wish, and nothing of a foreign table."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from base.errors import ConfigError
from control.host import bridge_table, foreign, multicast, nft, nft_events, owned, ruleset
from control.host.ports import Port
from control.host.ruleset import Exposed, HostRules

OVERLAY = Exposed(IPv4Interface("10.32.0.1/12"))
PLAIN = Exposed(IPv4Interface("10.2.0.1/16"), masquerade=False)


def comments(rules: HostRules, chain: str) -> list[str]:
    found = nft.wanted_comments(ruleset.replace_table(rules))
    return [comment for name, comment in found if name == chain]


def rule(rules: HostRules, comment: str) -> list[Any]:
    (found,) = (
        each["add"]["rule"]["expr"]
        for each in ruleset.replace_table(rules)
        if each.get("add", {}).get("rule", {}).get("comment") == comment
    )
    assert isinstance(found, list)
    return found


def port(*addresses: str) -> Port:
    return Port(addresses=tuple(map(IPv4Interface, addresses)))


def test_the_table_is_replaced_in_one_transaction() -> None:
    first, second, third, *rest = ruleset.replace_table(HostRules())
    table = {"table": {"family": "ip", "name": "weave"}}
    assert [first, second, third] == [{"add": table}, {"delete": table}, {"add": table}]
    assert all(list(each) == ["add"] for each in rest)
    assert "flush" not in json.dumps(rest)


@pytest.mark.parametrize("bridge", ["weave", "filter", "br0"])
def test_only_tables_of_ours_are_touched(bridge: str) -> None:
    rules = HostRules(
        bridge=bridge, exposed=(OVERLAY,), local_ranges=(IPv4Network("10.32.0.0/13"),)
    )
    ports = {"vethwepl1": port("10.1.0.1/24", "10.2.0.1/24")}
    commands = ruleset.replace_table(rules)
    commands += bridge_table.replace_table(rules.table, ports, secured=True)
    for command in commands:
        (content,) = command.values()
        ((kind, what),) = content.items()
        assert what["name" if kind == "table" else "table"] == rules.table
        assert rules.table == ("weave" if bridge == "weave" else f"weave-{bridge}")


def test_a_joined_bridge_keeps_its_sources() -> None:
    assert comments(HostRules(exposed=(OVERLAY,)), "joined") == []
    rules = HostRules(bridge="br0", exposed=(OVERLAY, PLAIN), joined=True)
    assert comments(rules, "joined") == [
        "masquerade to 10.32.0.0/12 all the same",
        "joined bridges keep their sources",
    ]
    assert rule(rules, "joined bridges keep their sources") == [
        {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "br0"}},
        {"snat": {"addr": {"payload": {"protocol": "ip", "field": "saddr"}}}},
    ]


def test_nothing_is_exposed_at_first() -> None:
    assert comments(HostRules(), "postrouting") == []
    assert comments(HostRules(), "forward") == [
        "overlay to overlay",
        "overlay to elsewhere",
        "answers to overlay",
    ]


def test_exposed_subnets() -> None:
    rules = HostRules(exposed=(OVERLAY, PLAIN), local_ranges=())
    assert comments(rules, "postrouting") == [
        "no masquerade to owned ranges",
        "multicast from 10.32.0.0/12",
        "masquerade to 10.32.0.0/12",
        "masquerade from 10.32.0.0/12",
    ]
    assert comments(rules, "forward")[1:3] == ["exposed 10.32.0.0/12", "exposed 10.2.0.0/16"]
    assert {"masquerade": {"flags": "fully-random"}} in rule(rules, "masquerade to 10.32.0.0/12")
    elements = [
        each["add"]["element"]["elem"]
        for each in ruleset.replace_table(rules)
        if "element" in each.get("add", {})
    ]
    assert elements == [["10.2.0.1"]]


def test_two_addresses_of_one_subnet_make_one_set_of_rules() -> None:
    other = Exposed(IPv4Interface("10.32.0.2/12"))
    assert len(comments(HostRules(exposed=(OVERLAY, other)), "postrouting")) == 3


def test_with_a_policy_controller_we_accept_nothing_into_the_overlay() -> None:
    rules = HostRules(exposed=(OVERLAY,), expect_npc=True, strict=True)
    assert comments(rules, "forward") == ["overlay to elsewhere", "answers to overlay"]


def test_strict_drops_last() -> None:
    assert comments(HostRules(strict=True), "forward")[-1] == "what the host's policy drops"


def test_input_protects_the_router() -> None:
    assert comments(HostRules(), "input") == [
        "answers",
        "control port 6784 from elsewhere",
        "weave to router, tcp",
        "weave to router, udp",
    ]
    assert len(comments(HostRules(pods_to_router=True), "input")) == 2
    docker = HostRules(docker_bridge="docker0")
    assert "docker0 to router, udp" in comments(docker, "input")
    assert comments(docker, "forward")[0] == "docker to overlay"


def test_every_rule_has_a_comment_of_its_own() -> None:
    rules = HostRules(
        exposed=(OVERLAY, PLAIN), local_ranges=(), docker_bridge="docker0", strict=True
    )
    found = nft.wanted_comments(ruleset.replace_table(rules))
    assert len(set(found)) == len(found)
    assert all(0 < len(comment) < 128 for _, comment in found)


def test_isolation_only_with_more_than_one_subnet() -> None:
    one = {"vethwepl1": port("10.1.0.1/24"), "vethwepl2": port("10.1.0.2/24")}
    assert [list(each) for each in bridge_table.replace_table("weave", one)] == [
        ["add"],
        ["delete"],
    ]
    two = one | {"vethwepl2": port("10.0.0.1/8", "10.1.0.2/24")}
    commands = bridge_table.replace_table("weave", two)
    pairs = [
        each["add"]["element"]["elem"]
        for each in commands
        if each.get("add", {}).get("element", {}).get("name") == multicast.MEMBERS_SET
    ]
    assert [[pair["concat"][0] for pair in each] for each in pairs] == [["vethwepl1", "vethwepl2"]]


def test_port_security_lets_be_whose_mac_is_not_known() -> None:
    ports = {
        "vethwepl1": Port("02:00:00:00:00:01", port("10.1.0.1/24").addresses * 2),
        "vethwepl2": port("10.1.0.2/24"),
    }
    assert len(bridge_table.replace_table("weave", ports)) == 2
    commands = bridge_table.replace_table("weave", ports, secured=True)
    elements = {
        found["name"]: found["elem"]
        for each in commands
        if (found := each.get("add", {}).get("element"))
    }
    assert elements == {
        "secured": ["vethwepl1"],
        "own-macs": [{"concat": ["vethwepl1", "02:00:00:00:00:01"]}],
        "own-addresses": [{"concat": ["vethwepl1", "10.1.0.1"]}],
    }


# ---- owned ranges ----


def test_cover_merges_neighbours() -> None:
    start = int(IPv4Address("10.32.0.0"))
    assert owned.cover([(start + 256, start + 512), (start, start + 256), (7, 7)]) == (
        IPv4Network("10.32.0.0/23"),
    )
    assert owned.cover([(2**32 - 1, 2**32)]) == (IPv4Network("255.255.255.255/32"),)


def test_the_difference_leads_from_one_cover_to_the_next() -> None:
    rng = random.Random(4)
    ranges, kernel = owned.OwnedRanges(), set[IPv4Network]()
    for _ in range(300):
        borders = sorted(rng.sample(range(1 << 12), rng.randrange(8) * 2))
        wish = list(zip(borders[::2], borders[1::2], strict=True))
        delta = ranges.change(wish)
        if delta is not None:
            assert kernel >= set(delta.removed)
            kernel = kernel - set(delta.removed) | set(delta.added)
            assert kernel == set(delta.wanted)
        addresses = {int(each) for network in kernel for each in network}
        assert addresses == {each for start, end in wish for each in range(start, end)}
        assert ranges.change(wish) is None


# ---- foreign chains ----


def chain(family: str, table: str, policy: str, name: str = "FORWARD") -> dict[str, Any]:
    described = {"family": family, "table": table, "name": name, "hook": "forward"}
    return {"chain": described | {"policy": policy}}


def test_forward_chains() -> None:
    listing = [
        chain("ip", "filter", "drop"),
        chain("inet", "mine", "accept", "f"),
        chain("inet", "firewalld", "accept", "filter_FORWARD"),
        chain("ip6", "filter", "drop"),
        chain("ip", "weave", "drop", "forward"),
        chain("bridge", "filter", "drop"),
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}},
        {"table": {"family": "ip", "name": "x"}},
    ]
    assert foreign.forward_chains(listing, "weave") == {
        foreign.Chain("ip", "filter", "FORWARD"): True,
        foreign.Chain("inet", "mine", "f"): False,
        foreign.Chain("inet", "firewalld", "filter_FORWARD"): True,
    }


def test_parse_forward() -> None:
    text = (
        "-P FORWARD DROP\n"
        '-A FORWARD -i weave -m comment --comment "weft weave" -j ACCEPT\n'
        '-A FORWARD -i weave2 -m comment --comment "weft weave2" -j ACCEPT\n'
        '-A FORWARD -m comment --comment "a \\" quote\n'
    )
    assert foreign.parse_forward(text, "weave") == foreign.IptablesState(drops=True, ours=1)
    assert foreign.parse_forward("-P FORWARD ACCEPT\n", "weave").drops is False


def test_backend() -> None:
    assert foreign.Backend.of({}) is foreign.Backend.AUTO
    assert foreign.Backend.of({"IPTABLES_BACKEND": "legacy"}) is foreign.Backend.LEGACY
    with pytest.raises(ConfigError, match="IPTABLES_BACKEND: 'ebtables' is not one of"):
        foreign.Backend.of({"IPTABLES_BACKEND": "ebtables"})


# ---- kernel's news ----


def test_decode_changes() -> None:
    datagram = bytes.fromhex(
        "38000000" "000a" "0000" "00000000" "00000000" "02000003" "0800010066" "6f6f00"
        "0800030000000000" "0c00040000000000" "00000002" "0800020000000000"
    )  # fmt: skip
    (change,) = nft_events.decode_changes(datagram)
    assert change == nft_events.TableChange(nft_events.NEW_TABLE, 2, "foo")
    assert change.structural
    for end in range(len(datagram)):
        assert list(nft_events.decode_changes(datagram[:end])) == []


def test_any_bytes_are_decoded() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        list(nft_events.decode_changes(rng.randbytes(rng.randrange(80))))
