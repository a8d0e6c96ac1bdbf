"""Those who do not know the password, and those who only want to be in the way.

Source of truth: mesh specification 3, 4; node specification 8.
"""

from __future__ import annotations

import sys

import anyio
import pytest

from lab.lab import Lab
from tests.netns.support import PASSWORD, netns, proc_file, until

pytestmark = [*netns(120), pytest.mark.patient]


async def test_a_wrong_password_is_refused_and_named_without_a_storm() -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        await first.start_weft(peers=[], password=PASSWORD)
        with first.capture() as capture:
            await second.start_weft(peers=[first.address], password="another horse battery")
            await anyio.sleep(8.0)
            dials = [packet for packet in capture.packets() if _is_syn(packet.data)]
        assert 1 <= len(dials) <= 5
        (target,) = await second.connections()
        assert target["State"] in ("failed", "connecting", "waiting")
        assert "password" in target["Error"]
        assert "password" in await second.weft_status("connections")
        assert await first.connections() == []
        assert f"refused for another password, or for none: {second.address}" in (
            await first.weft_status()
        )
        assert not (await lab.containers[0].ping(lab.containers[1], count=1, wait_s=0.3)).ok


@pytest.mark.parametrize("with_password", ["first", "second"])
async def test_a_password_on_one_side_is_refused_and_named(with_password: str) -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        here, there = (PASSWORD, None) if with_password == "first" else (None, PASSWORD)
        await first.start_weft(peers=[], password=here)
        await second.start_weft(peers=[first.address], password=there)

        async def named() -> bool:
            found = await second.connections()
            return bool(found) and "password" in (found[0]["Error"] or "")

        await until(named, "status names the reason")
        assert await first.connections() == []
        warnings = (await first.report())["Warnings"]
        assert f"refused for another password, or for none: {second.address}" in warnings


def _is_syn(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[47] & 0x12 == 0x02


async def test_a_flood_of_connections_does_not_keep_a_real_peer_out() -> None:
    async with Lab(3) as lab:
        first, second, third = lab.hosts
        await first.start_weft(peers=[], password=PASSWORD)
        flood = third.spawn(sys.executable, "-c", _FLOOD, first.address)
        try:
            await until(lambda: "flooding" in flood.stdout(), "the flood has begun")
            await anyio.sleep(1.0)
            await second.start_weft(peers=[first.address], password=PASSWORD)
            await second.wait_established(1, timeout_s=10.0)
            assert flood.returncode is None
        finally:
            flood.close()
        pid = first.pids("control")[0]
        rss_kb = int(proc_file(pid, "status").partition(b"VmRSS:")[2].split()[0])
        assert rss_kb < 200_000


#: Half-open handshakes, closed and opened again, at most 400 at once and 20 s long.
_FLOOD = """
import select, socket, sys, time
print("flooding", flush=True)
held = []
end = time.monotonic() + 20
while time.monotonic() < end:
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((sys.argv[1], 6783))
    held.append(s)
    if len(held) > 400:
        for s in held[:200]:
            s.close()
        del held[:200]
        time.sleep(0.05)
    for s in select.select([], held, [], 0)[1]:
        try:
            s.send(b"weave\\x01\\x02"[:7])
        except OSError:
            pass
"""
