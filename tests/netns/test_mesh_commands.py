"""What the user may ask of a running member of the mesh, and the options it was started with.

Source of truth: node specification 8, 10, 13 (rows 115, 150, 175, 700); mesh specification 7.
"""

from __future__ import annotations

import signal
from typing import Any

import anyio
import pytest

from lab.host import BRIDGE, Host, weft_argv, weft_environment
from lab.lab import Lab
from tests.netns.support import PASSWORD, has_interface, netns, until

pytestmark = [*netns(90), pytest.mark.patient]

NOBODY = "10.99.0.99"


async def targets(host: Host) -> list[str]:
    """The peers that the user asked for."""
    return (await host.weft_status("targets")).split()


async def neighbours(host: Host) -> list[str]:
    """Names of those that we have an established connection to."""
    return sorted(
        each["Name"] for each in await host.connections() if each["State"] == "established"
    )


async def tried(host: Host) -> list[str]:
    """Addresses that we are not connected at and try."""
    return [each["Address"] for each in await host.connections() if each["Name"] is None]


async def test_connect_replace_and_forget() -> None:
    """Row 150."""
    async with Lab(3) as lab:
        first, second, third = lab.hosts
        for host in lab.hosts:
            await host.start_weft("--no-discovery", peers=[])
        assert await targets(first) == []
        await first.connect(second.address)
        await first.wait_established(1)
        assert await targets(first) == [second.address]
        await first.connect(NOBODY)
        assert await targets(first) == [second.address, NOBODY]
        await until(lambda: _failed(first, f"{NOBODY}:6783"), "the stranger failed", 10.0)

        await first.connect(third.address, replace=True)
        assert await targets(first) == [third.address]
        # the connection that there is stays; what nobody wants any more is not tried
        await until(lambda: _is(neighbours(first), _names(second, third)), "both connected")
        await until(lambda: _is(tried(first), []), "nobody else is tried")

        await first.forget(third.address)
        assert await targets(first) == []
        assert await neighbours(first) == _names(second, third)
        assert third.weft is not None
        await third.weft.stop(signal.SIGKILL)
        await until(lambda: _is(neighbours(first), _names(second)), "the third is gone")
        await anyio.sleep(3.0)
        assert await tried(first) == []


def _names(*hosts: Host) -> list[str]:
    return sorted(host.peer_name for host in hosts)


async def _is(found: Any, wanted: Any) -> bool:
    return bool(await found == wanted)


async def _failed(host: Host, address: str) -> bool:
    states = {each["Address"]: each for each in await host.connections()}
    return (
        address in states
        and states[address]["State"] == "failed"
        and bool(states[address]["Error"])
        and bool(states[address]["RetryAt"])
    )


async def test_connect_refuses_what_does_not_resolve() -> None:
    async with Lab(1) as lab:
        host = lab.hosts[0]
        await host.start_weft(peers=[])
        argv = [*weft_argv(), "connect", "--http-addr", host.http_socket]
        for words in (
            ["nowhere.invalid"],
            ["10.99.0.7:no-port!"],
            ["--replace", "nowhere.invalid"],
        ):
            done = await host.run(*argv, *words, check=False, env=weft_environment())
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1
            assert words[-1].partition(":")[0] in done.stderr
        assert await targets(host) == []
        # the good ones of a list go through, the bad one is named
        done = await host.run(*argv, NOBODY, "nowhere.invalid", check=False, env=weft_environment())
        assert done.returncode == 1
        assert "nowhere.invalid" in done.stderr
        assert await targets(host) == [NOBODY]


async def test_peers_are_remembered_for_resume_and_after_a_crash() -> None:
    """Row 175."""
    async with Lab(2) as lab:
        first, second = lab.hosts
        await second.start_weft(peers=[])
        await first.start_weft(peers=[])
        await first.connect(second.address)
        await first.wait_established(1)

        # a crash of control alone, and of everything: what the user asked for last is kept
        killed = first.kill_control()
        await until(lambda: first.pids("control") not in ([], [killed]), "another control runs")
        await until(lambda: _answers(first), "the API is back", 30.0)
        assert await targets(first) == [second.address]
        await _kill(first)
        await first.start_weft(peers=[])
        assert await targets(first) == [second.address]
        await first.wait_established(1)

        # stop and launch: the command line counts
        assert await first.stop_weft() == 0
        await first.start_weft(peers=[])
        assert await targets(first) == []

        # stop and launch --resume: what was asked for last
        await first.connect(second.address)
        assert await first.stop_weft() == 0
        await first.start_weft("--resume", peers=[])
        assert await targets(first) == [second.address]
        await first.wait_established(1)
        await first.stop_weft()

        argv = [*first.launch_argv(peers=[second.address]), "--resume"]
        done = await first.run(*argv, check=False, env=weft_environment(), timeout_s=20.0)
        assert done.returncode == 1
        assert [line for line in done.stderr.splitlines() if line.startswith("weft: --resume: ")]


async def _answers(host: Host) -> bool:
    argv = [*weft_argv(), "status", "--http-addr", host.http_socket]
    return (await host.run(*argv, check=False, env=weft_environment())).returncode == 0


async def _kill(host: Host) -> None:
    assert host.weft is not None
    processes = [*host.pids("launch"), *host.pids("control"), *host.pids("router")]
    host.weft.kill_group(signal.SIGKILL)
    await host.weft.wait(5.0)
    host.weft.close()
    host.weft = None
    assert processes
    await until(
        lambda: not (host.pids("launch") or host.pids("control") or host.pids("router")),
        "everything of it is dead",
    )


async def test_a_node_keeps_the_name_that_it_made_up() -> None:
    async with Lab(1) as lab:
        host = lab.hosts[0]
        names = []
        argv = host.launch_argv(peers=[])
        at = argv.index("--name")
        del argv[at : at + 2]
        host.launch_argv = lambda **_: argv  # type: ignore[method-assign]
        for _ in range(2):
            await host.start_weft()
            names.append((await host.report())["Router"]["Name"])
            await host.stop_weft()
            host.ip(f"link del {BRIDGE}")
        assert names[0] == names[1]
        assert names[0] != host.peer_name


async def test_the_connection_limit() -> None:
    async with Lab(4) as lab:
        first, *others = lab.hosts
        await first.start_weft("--conn-limit", "2", peers=[])
        for host in others:
            await host.start_weft("--no-discovery", peers=[first.address])
        await until(lambda: _count(first, 2), "two are taken")
        await anyio.sleep(1.0)
        assert len(await neighbours(first)) == 2
        refused = [host for host in others if not await neighbours(host)]
        assert len(refused) == 1
        await until(lambda: _failed(refused[0], f"{first.address}:6783"), "the third is refused")


async def _count(host: Host, count: int) -> bool:
    return len(await neighbours(host)) == count


@pytest.mark.parametrize("both", [False, True], ids=["one side", "both sides"])
async def test_trusted_subnets(both: bool) -> None:
    """Row 115."""
    trust = ("--trusted-subnets", "10.99.0.0/24")
    async with Lab(2) as lab:
        first, second = lab.hosts
        await first.start_weft(*trust, peers=[], password=PASSWORD)
        await second.start_weft(*(trust if both else ()), peers=[first.address], password=PASSWORD)
        await lab.wait_connected()
        for host in lab.hosts:
            await host.wait_established(1)
            connection = (await host.connections())[0]
            assert connection["Encrypted"] is not both
            assert (connection["Cipher"] == "none") is both
            text = await host.weft_status("connections")
            assert ("unencrypted sleeve" if both else " encrypted   sleeve") in text
        assert "TrustedSubnets: 10.99.0.0/24" in await first.weft_status()
        with second.capture() as capture:
            ping = await lab.containers[0].ping(lab.containers[1], count=3)
            assert ping.ok
            mac = lab.containers[0].read("/sys/class/net/eth0/address").strip()
            packets = capture.packets()
            seen = [bytes.fromhex(mac.replace(":", "")) in packet.data for packet in packets]
            assert any(seen) is both


async def test_without_a_password_everybody_is_told() -> None:
    async with Lab(1) as lab:
        host = lab.hosts[0]
        await host.start_weft(peers=[])
        assert host.weft is not None
        warnings = [line for line in host.weft.stderr().splitlines() if " WARNING " in line]
        assert any("password" in line for line in warnings)
        status = await host.weft_status()
        assert "     Encryption: disabled\n" in status
        assert "        Warning: " in status
        assert (await host.report())["Router"]["Encryption"] is False


async def test_bad_input_is_one_line_and_nothing_half_done() -> None:
    async with Lab(1) as lab:
        host = lab.hosts[0]
        short = host.write_password("short")
        base = host.launch_argv(peers=[])
        at = base.index("--name")
        nameless = base[:at] + base[at + 2 :]
        for argv, option in (
            ([*base, "nowhere.invalid"], "nowhere.invalid"),
            ([*base, "10.99.0.9:99999"], "10.99.0.9:99999"),
            ([*nameless, "--name", "no-name"], "--name"),
            ([*nameless, "--name", "00:00:00:00:00:00"], "--name"),
            ([*base, "--password-file", short], "--password-file"),
            ([*base, "--password-file", "/nowhere"], "--password-file"),
            ([*base, "--trusted-subnets", "ten"], "--trusted-subnets"),
            ([*base, "--conn-limit", "-1"], "--conn-limit"),
            ([*base, "--db-prefix", "/proc/nowhere/weft-"], "--db-prefix"),
        ):
            done = await host.run(*argv, check=False, env=weft_environment(), timeout_s=20.0)
            said = [line for line in done.stderr.splitlines() if line.startswith("weft: ")]
            assert done.returncode == 1, (argv, done)
            assert len(said) == 1, (argv, done.stderr)
            assert option in said[0]
            assert "Traceback" not in done.stderr
            assert not has_interface(host, BRIDGE)


async def test_a_port_in_use_is_named() -> None:
    async with Lab(1) as lab:
        host = lab.hosts[0]
        script = (
            "import socket,time; s = socket.create_server(('0.0.0.0', 6783)); "
            "print('bound', flush=True); time.sleep(60)"
        )
        holder = host.spawn("/usr/bin/env", "python3", "-c", script)
        try:
            await until(lambda: "bound" in holder.stdout(), "the port is taken")
            argv = host.launch_argv(peers=[])
            done = await host.run(*argv, check=False, env=weft_environment(), timeout_s=20.0)
        finally:
            holder.close()
        said = [line for line in done.stderr.splitlines() if line.startswith("weft: ")]
        assert done.returncode == 1
        assert len(said) == 1
        assert "--port" in said[0]
        assert "6783" in said[0]
        assert not has_interface(host, BRIDGE)
