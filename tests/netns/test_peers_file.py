"""The peers file reread on SIGHUP: taken over whole or not at all, never at the cost of a frame."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import anyio
import pytest

from lab import plan
from lab.host import Host
from lab.lab import Lab
from tests.netns.support import Pinging, netns, until

pytestmark = [*netns(120), pytest.mark.patient]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Three hosts that all know each other."""
    async with Lab(3) as built:
        await built.start_weft()
        yield built


def _reload(host: Host, peers: str) -> None:
    host.write_peers(peers)
    assert host.weft is not None
    host.weft.kill(signal.SIGHUP)


def _peers(*numbers: int) -> str:
    """A mesh of some of the hosts."""
    whole = plan.peers_file(max(numbers), "mesh").split("\n\n")
    return "\n\n".join(part for number, part in enumerate(whole, start=1) if number in numbers)


async def _knows(host: Host, count: int) -> bool:
    report = await host.report()
    sequence = report["Sequence"]
    return len(report["Router"]["Peers"]) == count and sequence["Control"] == sequence["Router"]


async def test_a_peer_is_removed_and_added_again(lab: Lab) -> None:
    c1, c2, c3 = lab.containers
    h1 = lab.hosts[0]
    async with Pinging(c1, c2) as ping:
        _reload(h1, _peers(1, 2))
        await until(lambda: _knows(h1, 2), "the removed peer is forgotten")
        assert (await c1.ping(c3, count=2, wait_s=0.3)).received == 0
        counters = (await h1.report())["Counters"]
        assert counters["drop_unknown_sender"] > 0
        _reload(h1, _peers(1, 2, 3))
        await until(lambda: _knows(h1, 3), "the added peer is known")
        assert (await c1.ping(c3, count=3)).received >= 1
        await anyio.sleep(0.3)
    assert ping.sent > 100
    assert ping.missing == []


async def test_an_unchanged_file_changes_nothing(lab: Lab) -> None:
    c1, c2, _ = lab.containers
    h1 = lab.hosts[0]
    before = (await h1.report())["Sequence"]
    async with Pinging(c1, c2) as ping:
        for _ in range(5):
            _reload(h1, _peers(1, 2, 3))
            await anyio.sleep(0.1)
    assert ping.missing == []
    assert (await h1.report())["Sequence"] == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param('[[peer]]\nname = "nonsense"\n', "peers.toml:2", id="bad-name"),
        pytest.param("[[peer]\n", "peers.toml:1", id="no-toml"),
        pytest.param("", "no peer", id="empty"),
        pytest.param(None, "ce:01:00:00:00:01", id="without-ourselves"),
    ],
)
async def test_an_invalid_file_is_refused(lab: Lab, text: str | None, complaint: str) -> None:
    c1, c2, c3 = lab.containers
    h1 = lab.hosts[0]
    assert h1.weft is not None
    before = (await h1.report())["Sequence"]
    async with Pinging(c1, c2) as ping:
        _reload(h1, _peers(2, 3) if text is None else text)

        def complained() -> bool:
            assert h1.weft is not None
            return complaint in h1.weft.stderr()

        await until(complained, "the log names the place")
        assert (await c1.ping(c3)).lost == 0
    assert ping.missing == []
    assert (await h1.report())["Sequence"] == before
    # Once mended it is taken over.
    _reload(h1, _peers(1, 2))
    await until(lambda: _knows(h1, 2), "the mended file is in force")
    assert h1.weft.returncode is None


async def test_a_line_becomes_a_mesh(lab: Lab) -> None:
    """Routes change under running traffic: c1 reaches c3 by way of h2, then directly."""
    c1, _, c3 = lab.containers
    line = plan.peers_file(3, "line")
    for host in lab.hosts:
        _reload(host, line)
    for host in lab.hosts:
        await until(lambda host=host: _links(host, 2), "the line is in force")
    relayed = (await lab.hosts[1].report())["Counters"]["relayed_frames"]
    async with Pinging(c1, c3) as ping:
        await anyio.sleep(0.2)
        assert (await lab.hosts[1].report())["Counters"]["relayed_frames"] > relayed
        # Both ends first learn of each other; a frame of either form is always taken.
        for host in (lab.hosts[2], lab.hosts[0], lab.hosts[1]):
            _reload(host, _peers(1, 2, 3))
            await anyio.sleep(0.3)
        await until(lambda: _links(lab.hosts[1], 3), "the mesh is in force")
        relayed = (await lab.hosts[1].report())["Counters"]["relayed_frames"]
        await anyio.sleep(0.3)
        assert (await lab.hosts[1].report())["Counters"]["relayed_frames"] == relayed
    assert len(ping.missing) <= 40, "only while one end sent directly and the other did not listen"


async def _links(host: Host, count: int) -> bool:
    """Whether the mesh, as this host knows it, has so many links."""
    peers = (await host.report())["Router"]["Peers"]
    return sum(len(peer["Connections"] or ()) for peer in peers) == 2 * count
