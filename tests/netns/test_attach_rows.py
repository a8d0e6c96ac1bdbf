"""Containers attached by the command, on whole nodes.

Source of truth: node specification 13, rows 100, 195, 300, 370, 500, 510, in the tests' names.
"""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from lab.guest import Guest
from lab.host import Host, weft_argv, weft_environment
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    ask,
    clean,
    host_reaches,
    owned,
    ring,
    seeds,
    until_all_reach,
)
from tests.netns.support import has_interface, netns, until

pytestmark = [*netns(180), pytest.mark.patient]

RANGE = ("--ipalloc-range", "10.32.0.0/16", "--ipalloc-default-subnet", "10.32.1.0/24")
#: Dead for so long, a container of the original lost its addresses.
GRACE_S = 31.0


async def refused(host: Host, *words: str) -> str:
    """The one line of a ``weft`` command that fails."""
    argv = [*weft_argv(), words[0], "--http-addr", host.http_socket, *words[1:]]
    done = await host.run(*argv, check=False, env=weft_environment(), timeout_s=20.0)
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


async def test_100_fixed_default_and_named_subnets_and_a_restart() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        await lab.start_weft(*RANGE, *seeds(lab.hosts), mesh=True, connect_timeout_s=None)
        kinds: dict[str, list[Guest]] = {}
        for kind, words in (
            ("default", [(), ()]),
            ("fixed", [("10.2.1.41/24",), ("10.2.1.42/24",)]),
            ("named", [("net:10.32.9.0/24",), ("net:10.32.9.0/24",)]),
        ):
            kinds[kind] = [lab.new_guest(host, f"{kind}{host.index}") for host in lab.hosts]
            for guest, addresses in zip(kinds[kind], words, strict=True):
                await guest.attach(*addresses)
        assert [guest.ipv4 for guest in kinds["fixed"]] == ["10.2.1.41", "10.2.1.42"]
        assert {guest.ipv4.rpartition(".")[0] for guest in kinds["default"]} == {"10.32.1"}
        assert {guest.ipv4.rpartition(".")[0] for guest in kinds["named"]} == {"10.32.9"}
        for guests in kinds.values():
            await until_all_reach(guests)

        # started again it has its address again, and keeps it while it does not run
        there, here = kinds["default"][1], kinds["default"][0]
        here.end()
        await anyio.sleep(GRACE_S)
        again = lab.new_guest(first, here.name)
        assert await again.attach() == [here.ipv4]
        await until_all_reach([again, there])
        assert (await owned(first))[again.name] == [f"{again.ipv4}/24"]
        assert clean(await first.audit())
        assert clean(await second.audit())


async def test_195_the_multicast_route_as_asked() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        await host.start_weft("--ipalloc-init", "consensus=1", peers=[])
        there, absent = lab.new_guest(host, "with"), lab.new_guest(host, "without")
        await there.attach()
        await absent.attach("--no-multicast-route")
        found = [
            (await guest.run("ip", "route", "show", "224.0.0.0/4")).stdout
            for guest in (there, absent)
        ]
        assert "dev ethwe scope link" in found[0]
        assert found[1] == ""


async def test_300_an_address_of_another_container_answers_at_once() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        await lab.start_weft(*seeds(lab.hosts), mesh=True, connect_timeout_s=None)
        old, new = lab.new_guest(first, "old"), lab.new_guest(first, "new")
        near, far = lab.new_guest(first, "near"), lab.new_guest(second, "far")
        await old.attach("10.32.0.77/12")
        await near.attach()
        await far.attach()
        await until_all_reach([old, near, far])
        before = await _neighbour(far, old.ipv4)
        await old.detach("10.32.0.77/12")
        await new.attach("10.32.0.77/12")
        mac = new.read("/sys/class/net/ethwe/address")
        assert mac != before
        for guest in (near, far):
            # told, not asked: nobody has sent it anything meanwhile
            await until(partial(_knows, guest, new.ipv4, mac), "the new MAC", PATIENCE_S)
            assert (await guest.ping(new, count=1, wait_s=3.0)).ok


async def _neighbour(guest: Guest, address: str) -> str:
    words = (await guest.run("ip", "neigh", "show", address)).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


async def _knows(guest: Guest, address: str, mac: str) -> bool:
    return await _neighbour(guest, address) == mac


async def test_370_what_stopped_while_the_node_was_down() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        options = (*RANGE, "--ipalloc-init", "consensus=1")
        await host.start_weft(*options, peers=[])
        stays, goes = lab.new_guest(host, "stays"), lab.new_guest(host, "goes")
        await goes.attach()
        await stays.attach()
        (exposed,) = await host.expose()
        assert await host.stop_weft() == 0
        port = next(name for name in host.ports() if name.startswith("vethwepl"))
        goes.end()
        await until(lambda: len(host.ports()) == 2, f"one of the ports, {port}, goes", PATIENCE_S)
        await host.start_weft(*options, peers=[])
        known = await owned(host)
        assert known["stays"] == [f"{stays.ipv4}/24"]
        assert known["weave:expose"] == [f"{exposed}/24"]
        assert "goes" not in known
        assert stays.addresses() == [f"{stays.ipv4}/24"]
        assert await host.expose() == [exposed]
        assert await host_reaches(host, stays.ipv4, 5.0)
        assert clean(await host.audit())


async def test_500_several_kinds_of_addresses_and_the_lowest_that_is_free() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        await host.start_weft(*RANGE, "--ipalloc-init", "consensus=1", peers=[])
        one, two = lab.new_guest(host, "one"), lab.new_guest(host, "two")
        words = ("10.2.2.1/24", "net:10.32.2.0/24", "ip:10.2.3.1/24", "net:default")
        assert await one.attach(*words) == ["10.2.2.1", "10.32.2.1", "10.2.3.1", "10.32.1.1"]
        assert await two.attach() == ["10.32.1.2"]
        assert await host.expose("10.2.2.101/24", "net:10.32.2.0/24", "net:default") == [
            "10.2.2.101",
            "10.32.2.2",
            "10.32.1.3",
        ]
        for address in (*words[:1], words[2].removeprefix("ip:"), "10.32.2.1/24", "10.32.1.1/24"):
            assert address in one.addresses()
            assert await host_reaches(host, address.partition("/")[0], 5.0) is (
                not address.startswith("10.2.3.")
            )
        lines = (await host.ask_weft("ps")).splitlines()
        assert [line.split()[0] for line in lines] == ["weave:expose", "one", "two"]
        assert lines[1].split()[2:] == [
            "10.2.2.1/24",
            "10.32.2.1/24",
            "10.2.3.1/24",
            "10.32.1.1/24",
        ]

        assert "has bits of a host" in await refused(host, "expose", "net:10.32.2.1/24")
        for size in ("31", "32"):
            net = f"net:10.32.2.0/{size}"
            assert "no usable addresses" in await refused(host, "expose", net)
            attach = ("attach", "--pid", str(two.pid), net, "two")
            assert "no usable addresses" in await refused(host, *attach)
        assert "no prefix length" in await refused(host, "expose", "10.2.2.1")

        assert await one.detach("10.2.2.1/24", "net:10.32.2.0/24") == ["10.2.2.1", "10.32.2.1"]
        assert sorted(one.addresses()) == ["10.2.3.1/24", "10.32.1.1/24"]
        assert await one.detach() == ["10.32.1.1"]
        assert await one.detach("--all") == ["10.2.3.1"]
        assert one.addresses() == []
        assert await host.hide("10.2.2.101/24", "net:10.32.2.0/24", "net:default") == [
            "10.2.2.101",
            "10.32.2.2",
            "10.32.1.3",
        ]
        assert await host.hide() == []
        assert await owned(host) == {"two": ["10.32.1.2/24"]}
        assert clean(await host.audit())


async def test_510_detach_and_hide_never_wait_for_consensus() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        await host.start_weft("--ipalloc-init", "consensus=3", peers=[])
        guest = lab.new_guest(host, "guest")
        assert await guest.attach("10.2.1.1/24") == ["10.2.1.1"]
        assert await host.expose("10.2.1.2/24") == ["10.2.1.2"]
        assert await guest.detach("net:default") == []
        assert await host.hide() == []
        assert await guest.detach("10.2.1.1/24") == ["10.2.1.1"]
        assert await host.hide("10.2.1.2/24") == ["10.2.1.2"]
        assert (await ask(host, "DELETE", "/ip/guest")).status_code == 400
        assert await ring(host) == []
        assert not has_interface(guest, "ethwe")
