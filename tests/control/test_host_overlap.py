"""Ranges that the host has routes into: found, excused, and others suggested."""

from __future__ import annotations

import random
import re
from ipaddress import IPv4Interface, IPv4Network

import pytest

from control.host import overlap
from control.host.overlap import HostRoute, OverlapError
from tests.control.netns_host import sh
from tests.native.namespace import in_new_netns


def routes(*texts: str) -> list[HostRoute]:
    return [HostRoute(IPv4Network(text), "eth0") for text in texts]


RANGE = IPv4Network("10.32.0.0/12")


def test_words() -> None:
    overlap.check_range(RANGE, routes("10.0.0.0/11", "10.48.0.0/12", "192.168.0.0/16"))
    with pytest.raises(OverlapError) as caught:
        overlap.check_range(RANGE, routes("10.0.0.0/11", "10.40.1.0/24"))
    assert str(caught.value) == (
        "Network 10.32.0.0/12 overlaps with existing route 10.40.1.0/24 on host; give"
        " --ipalloc-range one of those that are free here: 10.48.0.0/12, 172.16.0.0/12,"
        " 100.64.0.0/12; or accept it with --allow-overlap 10.40.1.0/24"
    )


def test_allowed_routes() -> None:
    found = routes("10.40.1.0/24", "10.0.0.0/8")
    allowed = (IPv4Network("10.40.0.0/16"),)
    with pytest.raises(OverlapError, match=re.escape("existing route 10.0.0.0/8")):
        overlap.check_range(RANGE, found, allowed)
    overlap.check_range(RANGE, found, (*allowed, IPv4Network("10.0.0.0/8")))


def test_addresses() -> None:
    overlap.check_address(IPv4Interface("10.2.0.1/8"), routes("10.3.0.0/16"))
    with pytest.raises(OverlapError, match=re.escape("Address 10.3.0.1/24 overlaps with exist")):
        overlap.check_address(IPv4Interface("10.3.0.1/24"), routes("10.3.0.0/16"))


def test_nothing_is_free() -> None:
    everything = routes("0.0.0.0/1", "128.0.0.0/1")
    assert overlap.free_ranges(12, everything) == []
    with pytest.raises(OverlapError, match="none is free"):
        overlap.check_range(RANGE, everything)
    assert overlap.free_ranges(4, []) == []


def test_suggestions_are_free() -> None:
    rng = random.Random(3)
    for _ in range(200):
        length = rng.randrange(8, 29)
        taken = [
            HostRoute(IPv4Network((rng.randrange(10 << 24, 11 << 24), bits), strict=False), "")
            for bits in rng.choices(range(10, 25), k=rng.randrange(30))
        ]
        found = overlap.free_ranges(length, taken)
        assert len(found) == len(set(found))
        assert all(each.prefixlen == length for each in found)
        assert not [each for each in found if overlap.find_overlap(each, taken)]
        assert found or length < 10


@in_new_netns
def test_routes_of_the_host() -> None:
    sh(
        "ip link add weave type bridge; ip link set weave up; ip addr add 10.32.0.1/12 dev weave;"
        "ip link add va type veth peer name vb; ip link set va up; ip link set vb up;"
        "ip addr add 192.0.2.1/24 dev va; ip route add default via 192.0.2.2;"
        "ip route add 10.64.0.0/12 via 192.0.2.2; ip route add blackhole 10.80.0.0/16;"
        "ip route add 10.96.0.0/16 dev vb table 77;"
        "ip route add 10.97.0.0/16 nexthop via 192.0.2.3 nexthop via 192.0.2.4"
    )
    found = {(str(each.network), each.device) for each in overlap.host_routes(["weave", "vb"])}
    assert found == {
        ("192.0.2.0/24", "va"),
        ("10.64.0.0/12", "va"),
        ("10.80.0.0/16", ""),
        ("10.97.0.0/16", "va"),
    }
    assert ("10.96.0.0/16", "vb") in {
        (str(each.network), each.device) for each in overlap.host_routes()
    }
