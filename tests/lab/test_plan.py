"""Names, addresses, the peers file, and what the preflight says."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path

import pytest

from base.errors import ConfigError
from lab import plan, preflight


@pytest.mark.parametrize(
    ("nodes", "topology", "expected"),
    [
        (3, "mesh", []),
        (3, "line", [(1, 2), (2, 3)]),
        (4, "ring", [(1, 2), (2, 3), (3, 4), (4, 1)]),
        (2, "ring", [(1, 2)]),
        (1, "line", []),
    ],
)
def test_links(nodes: int, topology: plan.Topology, expected: list[tuple[int, int]]) -> None:
    assert list(plan.links(nodes, topology)) == expected


def test_peers_file() -> None:
    document = tomllib.loads(plan.peers_file(3, "line"))
    assert [peer["name"] for peer in document["peer"]] == [
        "ce:01:00:00:00:01",
        "ce:02:00:00:00:02",
        "ce:03:00:00:00:03",
    ]
    assert [link["between"] for link in document["link"]] == [["h1", "h2"], ["h2", "h3"]]


def test_no_two_addresses_are_equal() -> None:
    ends = [(host, container) for host in range(1, plan.NODES_MAX + 1) for container in (1, 2, 99)]
    for function in (plan.container_address, plan.container_address6, plan.container_mac):
        assert len({function(*end) for end in ends}) == len(ends)
    overlay = ipaddress.ip_network("10.32.0.0/12")
    assert all(ipaddress.ip_address(plan.container_address(*end)) in overlay for end in ends)


@pytest.mark.parametrize(("nodes", "topology"), [(0, "mesh"), (201, "mesh"), (3, "star")])
def test_refused(nodes: int, topology: str) -> None:
    with pytest.raises(ConfigError, match=r"^--(nodes|topology) .*: give "):
        plan.check(nodes, topology)


def test_preflight_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root: run it with sudo"):
        preflight.check()


def test_preflight_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "not installed: iperf3, nft; install: apt-get install iperf3 nftables"
    with pytest.raises(ConfigError, match=message):
        preflight.check(("iperf3", "nft"))
