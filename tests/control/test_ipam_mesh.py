"""Nodes that divide a range, as a user sees them: commands, refusals, the dead and the leaving."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from control.run_lock import LOCK_NAME
from tests.control.meshed import Member, free_port, host, members
from tests.control.processes import until, weft

#: Whole processes, on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)

_RANGE = ("--ipalloc-range", "10.32.0.0/16")
_SEEDS = ("--ipalloc-init", "seed=ce:01:00:00:00:01,ce:02:00:00:00:02")


def _share(member: Member, name: str) -> int:
    """How many addresses ``member`` thinks that ``name`` owns."""
    page = member.ask("GET", "/status/ipam", headers={"Accept": "application/json"}).json()
    return sum(int(each["NumIPs"]) for each in page["Peers"] if each["NickName"] == name)


def test_consensus_of_two_is_one_ring(tmp_path: Path) -> None:
    with members(tmp_path, 2, *_RANGE, "--ipalloc-init", "consensus=2") as (one, two):
        done = weft("prime", "--timeout", "60", "--http-addr", str(two.api))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        given = {member.text("POST", f"/ip/c{n}") for n in range(5) for member in (one, two)}
        assert len(given) == 10
        until(lambda: one.ipam()["Entries"] is not None, "the ring at the other")
        assert [entry["Peer"] for entry in one.ipam()["Entries"]] == [one.name, two.name]
        until(
            lambda: (
                [entry["Token"] for entry in two.ipam()["Entries"]]
                == [entry["Token"] for entry in one.ipam()["Entries"]]
            ),
            "one ring",
        )


def test_a_dead_peer_is_removed(tmp_path: Path) -> None:
    with members(tmp_path, 2, *_RANGE, *_SEEDS) as (one, two):
        address = ("--http-addr", str(one.api))
        two.text("POST", "/ip/c2")
        alive = weft("rmpeer", "host2", *address)
        assert alive.returncode == 1
        assert alive.stderr.startswith("weft: rmpeer: host2: peer host2 is reachable")
        assert alive.stderr.count("\n") == 1
        two.signal(signal.SIGKILL)
        until(lambda: "unreachable!" in one.text_of("/status/ipam"), "its absence", 40)
        assert "weave_ipam_unreachable_count 1\n" in one.text_of("/metrics")
        shown = weft("status", "ipam", *address)
        assert shown.returncode == 1  # there is no router
        assert "host2" in shown.stdout.splitlines()[1]
        done = weft("rmpeer", "host2", *address)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "32768 IPs taken over from host2\n"
        again = weft("rmpeer", "host2", "--json", *address)
        assert json.loads(again.stdout) == {"Peer": "host2", "TakenOver": 0, "Error": None}
        assert _share(one, "host1") == 65536


def test_an_address_outside_the_range_is_in_use_twice(tmp_path: Path) -> None:
    with members(tmp_path, 2, *_RANGE, *_SEEDS) as (one, two):
        for member in (one, two):
            claimed = member.ask("PUT", f"/ip/c{member.number}/192.168.7.7/24")
            assert claimed.status_code == 204
        for member, other in ((one, two), (two, one)):
            line = f"192.168.7.7 of c{member.number} is in use at {other.name}"
            until(partial(_says, member, line), "the warning", 30)
        two.ask("DELETE", "/ip/c2")
        until(lambda: not _says(one, "192.168.7.7"), "its end", 30)


def _says(member: Member, line: str) -> bool:
    return line in member.text_of("/status")


def test_a_node_is_drained(tmp_path: Path) -> None:
    with members(tmp_path, 2, *_RANGE, *_SEEDS) as (one, two):
        address = ("--http-addr", str(two.api))
        two.text("POST", "/ip/c2")
        refused = weft("drain", *address)
        assert refused.returncode == 1
        assert refused.stderr == (
            "weft: drain: 1 still have addresses here (c2); detach them first, or give --force\n"
        )
        assert _share(two, "host2") == 32768
        two.ask("DELETE", "/ip/c2")
        done = weft("drain", "--json", *address)
        assert json.loads(done.stdout) == {"Drained": True, "Abandoned": []}
        until(lambda: _share(one, "host1") == 65536, "the range at the heir")
        assert two.text("POST", "/ip/c3") == "cancelled"
        assert " Service: router" in two.text_of("/status")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace")
def test_a_host_is_reset(tmp_path: Path) -> None:
    with members(tmp_path, 2, *_RANGE, *_SEEDS) as (one, two):
        options = ["--db-prefix", f"{tmp_path}/2-", "--http-addr", str(two.api)]
        options += ["--control-socket", str(tmp_path / "router2.sock")]
        done = weft("reset", *options)
        assert done.returncode == 1
        assert done.stderr.startswith("weft: reset: addresses were handed over; now stop the node")
        until(lambda: _share(one, "host1") == 65536, "the range at the heir")
        two.signal(signal.SIGTERM)
        two.wait()
        gone = weft("reset", *options)
        assert gone.returncode == 1
        assert "reset --force, which hands no addresses over" in gone.stderr
        assert (tmp_path / "2-data.db").exists()
        forced = weft("reset", "--force", *options, apart=True)
        assert (forced.returncode, forced.stdout, forced.stderr) == (0, "", "")
        assert not list(tmp_path.glob("2-data.db*"))
        assert weft("reset", "--force", *options, apart=True).returncode == 0
        nothing = weft("reset", *options, apart=True)
        assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace")
def test_nothing_is_left_on_a_node_of_kubernetes(tmp_path: Path) -> None:
    state, plugins, configs = (tmp_path / name for name in ("state", "bin", "net.d"))
    for folder in (state, plugins, configs):
        folder.mkdir()
    (state / "weave-netdata.db").write_bytes(b"of another program")
    (plugins / "bridge").touch()
    folders = ["--plugin-dir", str(plugins), "--config-dir", str(configs)]
    assert weft("setup-cni", "--now", *folders).returncode == 0
    assert len(list(plugins.iterdir())) > 1
    assert list(configs.iterdir())
    options = ["--db-prefix", f"{state}/weft-", "--http-addr", str(tmp_path / "none.sock")]
    options += ["--control-socket", str(tmp_path / "router.sock"), *folders]
    (tmp_path / LOCK_NAME).touch()
    assert weft("reset", *options, apart=True).returncode == 0
    assert not (tmp_path / LOCK_NAME).exists()
    assert list(configs.iterdir()), "that was not asked for"
    done = weft("reset", "--kubernetes", *options, apart=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in plugins.iterdir()] == ["bridge"]
    assert not list(configs.iterdir())
    assert not list(state.iterdir())


def test_rings_of_different_seeds_do_not_mix(tmp_path: Path) -> None:
    port = free_port()
    alone = (*_RANGE, "--ipalloc-init", "consensus=1")
    with Member(tmp_path, 1, port, *alone) as one, Member(tmp_path, 2, port, *alone) as two:
        for member in (one, two):
            member.until_ready()
            assert member.text("POST", "/ip/c") == "10.32.0.1/16"
        one.ask("POST", "/connect", data={"peer": host(2)})
        until(
            lambda: "seeded by different peers" in one.text_of("/status/connections"),
            "the reason",
            30,
        )
        for member in (one, two):
            assert member.text("POST", "/ip/d") == "10.32.0.2/16"
            assert _share(member, f"host{member.number}") == 65536


def test_ranges_that_differ_do_not_mix(tmp_path: Path) -> None:
    port = free_port()
    with (
        Member(tmp_path, 1, port, *_RANGE, *_SEEDS) as one,
        Member(tmp_path, 2, port, "--ipalloc-range", "10.40.0.0/16", *_SEEDS, "--", host(1)) as two,
    ):
        for member in (one, two):
            member.until_ready()
        until(
            lambda: (
                "range" in one.text_of("/status/connections").lower()
                or "range" in two.text_of("/status/connections").lower()
            ),
            "the reason",
            30,
        )
        assert one.text("POST", "/ip/c") == "10.32.0.1/16"
        assert two.text("POST", "/ip/c") == "10.40.128.0/16"


def test_commands_without_allocation(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-range", "") as member:
        member.until_ready()
        for command in (["prime"], ["drain"]):
            done = weft(*command, "--http-addr", str(member.api))
            assert done.returncode == 1
            assert done.stderr.startswith(
                f"weft: {command[0]}: this node gives out no addresses (--static, or "
            )
        done = weft("status", "ipam", "--http-addr", str(member.api))
        assert done.returncode == 1


@pytest.mark.parametrize("command", ["prime", "rmpeer", "drain", "reset"])
def test_help_has_examples(command: str) -> None:
    done = weft(command, "--help")
    assert done.returncode == 0
    assert f"weft {command}" in done.stdout.split("Examples:")[1]


def test_nobody_there() -> None:
    nowhere = ("--http-addr", f"/nonexistent/{os.getpid()}.sock")
    for command in (["prime"], ["rmpeer", "x"], ["drain"]):
        done = weft(*command, *nowhere)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
    assert weft("rmpeer").stderr.startswith("weft: rmpeer: no peer; name those")
