"""Encrypted networks as an eavesdropper sees them.

Source of truth: mesh specification 3, 4; sleeve specification 5; docs/cipher.md; node
specification 13, row 110.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.container import Container
from lab.lab import Lab
from tests.netns.support import PASSWORD, http_get, netns, proc_file, until

pytestmark = [*netns(120), pytest.mark.patient]

MARK = b"known to all but not to be seen "
PAYLOAD_BYTES = 1_000_000

_RECEIVE = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7100))
print("ready", flush=True)
peer, _ = server.accept()
received = 0
while data := peer.recv(1 << 16):
    received += len(data)
print(received, flush=True)
"""
_SEND = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7100))
peer.sendall(sys.argv[2].encode() * (int(sys.argv[3]) // len(sys.argv[2])))
"""


async def transfer(one: Container, other: Container) -> None:
    """Send PAYLOAD_BYTES of MARK over TCP."""
    receiver = other.spawn(sys.executable, "-c", _RECEIVE)
    try:
        await until(lambda: "ready" in receiver.stdout(), "the receiver listens")
        await one.run(
            *(sys.executable, "-c", _SEND, other.ipv4, MARK.decode(), str(PAYLOAD_BYTES)),
            timeout_s=30.0,
        )
        assert await receiver.wait(10.0) == 0
        assert int(receiver.stdout().split()[-1]) == PAYLOAD_BYTES // len(MARK) * len(MARK)
    finally:
        receiver.close()


def secrets(one: Container, other: Container) -> dict[str, bytes]:
    """What nobody on the way may see: payload, MACs, addresses as headers have them."""
    found = {"payload": MARK[: len(MARK) // 2]}
    for container in (one, other):
        text = container.read(f"/sys/class/net/{container.interface}/address").strip()
        found[f"MAC of {container.name}"] = bytes.fromhex(text.replace(":", ""))
        found[f"address of {container.name}"] = ipaddress.ip_address(container.ipv4).packed
    return found


def occurrences(packets: Sequence[bytes], wanted: dict[str, bytes]) -> dict[str, int]:
    """How often each of them is in what was captured."""
    return {
        what: sum(packet.count(octets) for packet in packets) for what, octets in wanted.items()
    }


async def test_nothing_inner_is_seen_outside(sealed_lab: Lab) -> None:
    lab = sealed_lab
    one, other = lab.containers
    with lab.hosts[0].capture() as capture:
        await transfer(one, other)
        assert (await other.ping(one, count=3)).ok
        packets = [packet.data for packet in capture.packets()]
    assert sum(map(len, packets)) > PAYLOAD_BYTES
    seen = occurrences(packets, secrets(one, other))
    # four bytes turn up by chance once in some thousand runs
    assert {what for what, times in seen.items() if times > ("address" in what)} == set()
    status = await lab.hosts[0].weft_status("connections")
    assert " encrypted   sleeve " in status
    assert 'weave_connections{encryption="yes",state="established",type="sleeve"} 1\n' in (
        await http_get(lab.hosts[0], "/metrics")
    )


async def test_in_clear_all_of_it_is_seen() -> None:
    """The search of the last test finds what there is to find."""
    async with Lab(2) as lab:
        await lab.start_weft(mesh=True)
        one, other = lab.containers
        with lab.hosts[0].capture() as capture:
            await transfer(one, other)
            packets = [packet.data for packet in capture.packets()]
        seen = occurrences(packets, secrets(one, other))
        assert min(seen.values()) > 10


async def test_secrets_stay_out_of_argv_logs_and_files(sealed_lab: Lab) -> None:
    host = sealed_lab.hosts[0]
    assert host.weft is not None
    for role in ("launch", "control", "router"):
        for pid in host.pids(role):
            assert PASSWORD.encode() not in proc_file(pid, "cmdline")
    router = host.pids("router")[0]
    assert PASSWORD.encode() not in proc_file(router, "environ")
    said = [host.weft.stderr(), host.weft.stdout(), await host.weft_status()]
    said += [await host.weft_command("report", "--json", "--http-addr", host.http_socket)]
    said += [await http_get(host, "/metrics")]
    assert all(PASSWORD not in text for text in said)
    for path in host.run_path.iterdir():
        if path.is_file() and path.name != "password":
            assert PASSWORD.encode() not in path.read_bytes()
        if "data.db" in path.name:
            assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("source", ["variable", "credential", "option"])
async def test_other_sources_of_the_password(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        await first.start_weft(peers=[], password=PASSWORD)
        options = ("--password", PASSWORD) if source == "option" else ()
        if source == "variable":
            monkeypatch.setenv("WEAVE_PASSWORD", PASSWORD)
        elif source == "credential":
            folder = second.run_path / "credentials"
            folder.mkdir(mode=0o700)
            (folder / "weave-password").write_text(f"{PASSWORD}\n")
            inside = Path(second.control_socket).parent / folder.name
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(inside))
        await second.start_weft(*options, peers=[first.address])
        await second.wait_established(1)
        (connection,) = await second.connections()
        assert connection["Encrypted"]
        children = [second.pids(role)[0] for role in ("control", "router")]
        assert all(PASSWORD.encode() not in proc_file(pid, "cmdline") for pid in children)
        # control alone has to know it
        assert PASSWORD.encode() not in proc_file(children[1], "environ")
        assert second.weft is not None
        said = second.weft.stderr()
        assert PASSWORD not in said
        assert ("--password shows in the process list" in said) is (source == "option")
