"""No nonce is used twice under one key, whatever dies.

Source of truth: mesh specification 3, 4; sleeve specification 5; docs/cipher.md.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from lab.container import Container
from lab.decode import decode
from lab.host import BRIDGE, Host, weft_argv, weft_environment
from lab.lab import Lab
from tests.netns.keys import KeyTap, open_sealed
from tests.netns.support import CIPHERS, PASSWORD, netns, until

pytestmark = [*netns(300), pytest.mark.patient]

RESTARTS = 10


async def test_no_nonce_is_used_twice_over_restarts() -> None:
    async with anyio.create_task_group() as group:
        for cipher in CIPHERS:
            group.start_soon(_no_nonce_is_used_twice, cipher)


async def _no_nonce_is_used_twice(cipher: str) -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        await second.start_weft("--no-discovery", peers=[], password=PASSWORD, cipher=cipher)
        tap = KeyTap(first.run_path / "router.sock", first.run_path / "control.sock")
        with tap, first.capture() as capture:
            await _restart_and_talk(lab, cipher)
            datagrams = list(decode(packet.data for packet in capture.packets()))
        names = {first.peer_name, second.peer_name}
    assert set(tap.keys.values()) == {cipher}
    used: set[tuple[bytes, bytes]] = set()
    for datagram in datagrams:
        assert datagram.sender in names
        opened = open_sealed(datagram, tap.keys)
        assert opened is not None, "a datagram under a key that was never handed out"
        assert (opened.key, opened.nonce) not in used
        used.add((opened.key, opened.nonce))
    keys = {key for key, _ in used}
    print(f"{cipher}: {len(datagrams)} datagrams under {len(keys)} keys")
    # each life had one of its own: a restart of both together is one life
    assert len(keys) > RESTARTS
    assert len(used) > 4 * RESTARTS


async def _restart_and_talk(lab: Lab, cipher: str) -> None:
    """Restart the router ten times and control ten times, apart and together by turns."""
    first, second = lab.hosts
    one, other = lab.containers
    common = ["--weave-bridge", BRIDGE, "--host", first.address]
    run = Path(first.control_socket).parent
    control_argv = [
        *(*weft_argv(), "control", *common, "--name", first.peer_name, "--nickname", first.name),
        *("--db-prefix", first.state_prefix, "--http-addr", first.http_socket),
        *("--control-socket", str(run / "control.sock")),
        *("--password-file", first.write_password(PASSWORD), second.address),
    ]
    router_argv = [*weft_argv(), "router", *common, "--control-socket", first.control_socket]
    environment = {**weft_environment(), "WEFT_CIPHERS": cipher}
    control = first.spawn(*control_argv, env=environment)
    router = first.spawn(*router_argv, env=environment)
    try:
        await _talk(one, other, first)
        for number in range(RESTARTS):
            router.kill()
            router.close()
            router = first.spawn(*router_argv, env=environment)
            if number % 2:
                await _talk(one, other, first)
            control.kill()
            control.close()
            control = first.spawn(*control_argv, env=environment)
            await _talk(one, other, first)
    finally:
        router.close()
        control.close()


async def _talk(one: Container, other: Container, host: Host) -> None:
    async def established() -> bool:
        if not (host.run_path / "weave.sock").exists():
            return False
        argv = [*weft_argv(), "status", "connections", "--http-addr", host.http_socket]
        done = await host.run(*argv, check=False, env=weft_environment())
        return " established " in done.stdout

    await until(established, "the connection is there", 45.0, poll_s=0.1)
    if one.port not in host.ports():
        host.attach()

    async def reached() -> bool:
        return (await one.ping(other, count=1, wait_s=0.3)).ok

    await until(reached, "a ping is answered", 20.0)
