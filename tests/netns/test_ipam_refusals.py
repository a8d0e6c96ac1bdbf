"""What does not fit together is refused with its reason, and the node goes on.

Source of truth: node specification 13, rows 360, 362; ipam specification 8, 11.
"""

from __future__ import annotations

from functools import partial

import pytest

from lab.host import Host, weft_argv, weft_environment
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    allocate,
    ask,
    attach_all,
    clean,
    owned,
    seeds,
    shares,
    status,
    until_all_reach,
    until_one_ring,
    until_refused,
    until_up,
)
from tests.netns.support import Pinging, netns, until

pytestmark = [*netns(150), pytest.mark.patient]

ALONE = ("--ipalloc-init", "consensus=1")


def _processes(host: Host) -> list[int]:
    return [pid for role in ("launch", "control", "router") for pid in host.pids(role)]


async def test_360_rings_of_different_seeds_refuse_each_other() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        for host in lab.hosts:
            await host.start_weft(*ALONE, peers=[])
        guests = await attach_all(lab)
        assert [guest.ipv4 for guest in guests] == ["10.32.0.1", "10.32.0.1"]
        before = [_processes(host) for host in lab.hosts]
        await first.connect(second.address)
        await until_refused(lab.hosts, "seeded by different peers")
        for host in lab.hosts:
            assert await allocate(host, "more") == "10.32.0.2/12"
            assert set(await shares(host)) == {host.peer_name}
        assert [_processes(host) for host in lab.hosts] == before


async def test_different_ranges_refuse_each_other() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        init = seeds(lab.hosts)
        await first.start_weft("--ipalloc-range", "10.32.0.0/16", *init, peers=[])
        await second.start_weft("--ipalloc-range", "10.40.0.0/16", *init, peers=[])
        guests = await attach_all(lab)
        assert [guest.ipv4 for guest in guests] == ["10.32.0.1", "10.40.128.0"]
        before = [_processes(host) for host in lab.hosts]
        await second.connect(first.address)
        await until_refused(lab.hosts, "Incompatible IP allocation ranges")
        assert await allocate(first, "more") == "10.32.0.2/16"
        assert await allocate(second, "more") == "10.40.128.1/16"
        assert [_processes(host) for host in lab.hosts] == before


async def test_362_another_range_after_a_restart() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        init = seeds(lab.hosts)
        await lab.start_weft(
            "--ipalloc-range", "10.32.0.0/16", *init, mesh=True, connect_timeout_s=None
        )
        old = await attach_all(lab)
        await first.expose()
        for host in lab.hosts:
            await host.stop_weft()
        await lab.start_weft(
            "--ipalloc-range", "10.40.0.0/16", *init, mesh=True, connect_timeout_s=None
        )
        assert first.weft is not None
        assert "stored allocations are of the range 10.32.0.0/16" in first.weft.stderr()
        await until_one_ring(lab.hosts)
        guests = [lab.new_guest(host, f"new{host.index}") for host in lab.hosts]
        for guest in guests:
            await guest.attach()
        assert [guest.ipv4 for guest in guests] == ["10.40.0.1", "10.40.128.0"]
        await until_all_reach(guests)
        # who was there before stays there, until somebody detaches it
        await until_all_reach(old)
        for guest in old:
            assert await guest.detach("--all") == [guest.ipv4]
        for host in lab.hosts:
            assert clean(await host.audit())
        assert await second.expose() == ["10.40.128.1"]


async def _small_state(host: Host) -> tuple[str, str]:
    """A disk of its own for the state; its folder here, and the prefix."""
    folder = f"/run/{host.name}/disk"
    await host.run("mkdir", "-p", folder)
    await host.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    return folder, f"{folder}/weft-"


async def test_a_full_disk() -> None:
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = ("--ipalloc-range", "10.32.0.0/16", *seeds(lab.hosts))
        folder, prefix = await _small_state(first)
        await first.start_weft(*options, "--db-prefix", prefix, peers=[])
        await second.start_weft(*options, peers=[first.address])
        guests = await attach_all(lab)
        await until_all_reach(guests)
        before = _processes(first)
        async with Pinging(*guests) as ping:
            await first.run("sh", "-c", f"cat /dev/zero > {folder}/ballast", check=False)
            kept = {"g1": f"{guests[0].ipv4}/16"}
            refusal = await _fill(first, kept)
            assert "full" in refusal
            assert "Warning: addresses cannot be recorded: " in await status(first)
            # an attachment is all or nothing
            late = lab.new_guest(first, "late")
            argv = [*weft_argv(), "attach", "--http-addr", first.http_socket]
            argv += ["--pid", str(late.pid), "late"]
            done = await first.run(*argv, check=False, env=weft_environment(), timeout_s=30.0)
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert late.addresses() == []
            assert await allocate(second, "elsewhere")
            await first.run("rm", f"{folder}/ballast")
            await late.attach()
            kept |= {"late": f"{late.ipv4}/16", "later": await allocate(first, "later")}
        assert ping.missing == []
        assert _processes(first) == before
        assert "cannot be recorded" not in await status(first)
        assert {ident: [address] for ident, address in kept.items()} == await owned(first)
        assert len(set(kept.values())) == len(kept)
        audit = await first.audit()
        assert clean(audit), audit


async def _fill(host: Host, kept: dict[str, str]) -> str:
    """Allocate until it is refused: why. What was given is added to ``kept``."""
    for number in range(2000):
        ident = f"c{number}-{'x' * 900}"
        answer = await ask(host, "POST", f"/ip/{ident}")
        if answer.status_code != 200:
            assert answer.status_code == 503
            return answer.text
        kept[ident] = answer.text
    raise AssertionError("the disk does not fill up")


async def test_a_disk_that_has_become_read_only() -> None:
    """A control that is started again cannot write: it says so; the host's own frames go on.

    Those of other hosts wait for it: a node without control is not in the mesh.
    """
    async with Lab(2, containers=0) as lab:
        first, second = lab.hosts
        options = ("--ipalloc-range", "10.32.0.0/16", *seeds(lab.hosts))
        folder, prefix = await _small_state(first)
        await first.start_weft(*options, "--db-prefix", prefix, peers=[])
        await second.start_weft(*options, peers=[first.address])
        guests = await attach_all(lab)
        near = lab.new_guest(first, "near")
        await near.attach()
        await until_all_reach([*guests, near])
        routers = first.pids("router")
        async with Pinging(guests[0], near) as ping:
            first.kill_control()
            remount = partial(_remounted, first, folder)
            await until(remount, "nobody writes there", PATIENCE_S)
            said = partial(_has_said, first, "weft: --db-prefix: ", "Read-only file system")
            await until(said, "the reason", PATIENCE_S)
            await first.run("mount", "-o", "remount,rw", folder)
            await until_up(first)
        assert ping.missing == []
        assert first.pids("router") == routers
        await until_all_reach([*guests, near])
        assert await allocate(first, guests[0].name) == f"{guests[0].ipv4}/16"
        late = lab.new_guest(first, "late")
        await late.attach()
        audit = await first.audit()
        assert clean(audit), audit


async def _remounted(host: Host, folder: str) -> bool:
    done = await host.run("mount", "-o", "remount,ro", folder, check=False)
    return done.returncode == 0


def _has_said(host: Host, *texts: str) -> bool:
    assert host.weft is not None
    lines = host.weft.stderr().splitlines()
    return any(all(text in line for text in texts) for line in lines)


async def test_a_read_only_folder_ends_the_start() -> None:
    async with Lab(1, containers=0) as lab:
        host = lab.hosts[0]
        folder, prefix = await _small_state(host)
        await host.run("mount", "-o", "remount,ro", folder)
        argv = [*host.launch_argv(peers=[]), "--db-prefix", prefix]
        done = await host.run(*argv, check=False, env=weft_environment(), timeout_s=30.0)
        assert done.returncode == 1
        said = [line for line in done.stderr.splitlines() if line.startswith("weft: ")]
        assert len(said) == 1
        assert said[0].startswith("weft: --db-prefix: cannot open ")
        assert "Read-only file system" in said[0]
