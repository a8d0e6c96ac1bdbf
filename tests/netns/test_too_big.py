"""Packets longer than the path: who is told, with which number, and what is cut instead.

Ref: sleeve specification 8.2, 8.4, 8.5; RFC 792, RFC 1191, RFC 4443 3.2.
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.layers.l2 import Ether

from lab.container import Container
from lab.frames import bad_checksums
from lab.host import Host
from lab.lab import Lab
from lab.sniff import Packet
from tests.netns.support import OVERHEAD, counters, grown, netns, until

pytestmark = netns(60)

_IP_MTU_DISCOVER = 10
#: Sets DF and does not heed what the path says.
_IP_PMTUDISC_PROBE = 3
OVERLAY_MTU = 1500 - OVERHEAD
NARROW_UNDERLAY_MTU = 1400
NARROW_MTU = NARROW_UNDERLAY_MTU - OVERHEAD
#: As in native/src/encap.c.
ANSWERS_PER_SECOND = 1000
FLOOD, BURST = 6000, 500


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Two hosts; containers may send more than the underlay carries."""
    async with Lab(2) as built:
        await built.start_weft(mtu=9000)
        yield built


@pytest.fixture
async def narrow_line() -> AsyncIterator[Lab]:
    """Three hosts in a line, the second link narrower than the first."""
    async with Lab(3, "line") as built:
        _, h2, h3 = built.hosts
        for host, other in ((h2, h3), (h3, h2)):
            host.ip(f"route add {other.address}/32 dev eth0 mtu {NARROW_UNDERLAY_MTU}")
        await built.start_weft(mtu=9000)
        yield built


@pytest.fixture
async def unlike() -> AsyncIterator[Lab]:
    """The first bridge takes what the path carries, the second more, as a Weave node's does."""
    async with Lab(2) as built:
        first, second = built.hosts
        await first.start_weft(peers=[])
        await second.start_weft(peers=[first.address], mtu=65535)
        await built.wait_connected()
        await until(lambda: _carries_fragments(second), "the underlay is known to carry fragments")
        yield built


async def _carries_fragments(host: Host) -> bool:
    return all(each["StackFragmentation"] for each in (await host.report())["Forwarders"])


async def _told(source: Container, target: str, size: int, *options: str) -> int | None:
    """The MTU that ping was told about, None if nobody answered."""
    argv = ("ping", "-n", "-c2", "-i0.2", "-W0.5", f"-s{size}", "-Mdo", *options, target)
    said = (await source.run(*argv, check=False)).stdout
    # "Frag needed and DF set (mtu = 1438)" or "Packet too big: mtu=1438"
    found = re.search(r"From (\S+) icmp_seq=1 (?:Frag needed|Packet too big).*mtu ?= ?(\d+)", said)
    if found is None:
        return None
    assert found[1] == target
    return int(found[2])


def _answers(packets: list[Packet], kind: type[ICMP] | type[ICMPv6PacketTooBig]) -> list[Ether]:
    found = []
    for packet in packets:
        ether = Ether(packet.data)
        if kind in ether and (kind is not ICMP or ether[ICMP].type == 3):
            assert bad_checksums(packet.data) == []
            found.append(ether)
    return found


async def test_ipv4_with_df_is_told(lab: Lab) -> None:
    one, other = lab.containers
    before = await counters(lab.hosts[0])
    with one.capture() as capture:
        assert await _told(one, other.ipv4, 5000) == OVERLAY_MTU
        answers = _answers(capture.packets(), ICMP)
    assert len(answers) == 1, "the second ping knows already"
    (answer,) = answers
    assert (answer.src, answer.dst) == (other.mac, one.mac)
    assert (answer[IP].src, answer[IP].dst) == (other.ipv4, one.ipv4)
    assert (answer[ICMP].code, answer[ICMP].nexthopmtu) == (4, OVERLAY_MTU)
    quoted = answer[ICMP].payload
    assert (quoted.src, quoted.dst, quoted.len) == (one.ipv4, other.ipv4, 5028)
    found = grown(before, await counters(lab.hosts[0]))
    assert found["too_big_answers"] == found["drop_too_big"] == 1
    # The number is right: that much passes, one more does not.
    assert (await one.ping(other, size=OVERLAY_MTU - 28, dont_fragment=True)).received == 3
    assert (await one.ping(other, size=OVERLAY_MTU - 27, dont_fragment=True)).received == 0


async def test_ipv6_is_told(lab: Lab) -> None:
    one, other = lab.containers
    with one.capture() as capture:
        assert await _told(one, other.ipv6, 5000, "-6") == OVERLAY_MTU
        answers = _answers(capture.packets(), ICMPv6PacketTooBig)
    assert len(answers) == 1
    assert answers[0][ICMPv6PacketTooBig].mtu == OVERLAY_MTU
    assert (answers[0].src, answers[0].dst) == (other.mac, one.mac)
    # The container cuts what it may cut; the other end is told when it answers for the first time.
    assert (await one.ping(other, size=5000, ipv6=True)).received >= 2
    size = OVERLAY_MTU - 48
    assert (await one.ping(other, size=size, ipv6=True, dont_fragment=True)).received == 3
    assert (await one.ping(other, size=size + 1, ipv6=True, dont_fragment=True)).received == 0


@pytest.mark.parametrize("size", [1411, 5000, 20000, 60000])
async def test_ipv4_without_df_is_cut(lab: Lab, size: int) -> None:
    one, other = lab.containers
    before = await counters(lab.hosts[0])
    assert (await one.ping(other, size=size, dont_fragment=False)).received == 3
    assert grown(before, await counters(lab.hosts[0]))["fragmented_frames"] >= 3


async def test_nobody_answers_an_error_or_a_broadcast(lab: Lab) -> None:
    """Flooded frames get no answer: each neighbour would send one."""
    one, other = lab.containers
    one.ip(f"neigh replace {other.ipv4} lladdr 02:00:00:00:99:99 dev eth0")
    before = await counters(lab.hosts[0])
    assert await _told(one, other.ipv4, 5000) is None
    found = grown(before, await counters(lab.hosts[0]))
    assert found["drop_too_big_flooded"] == 2
    assert "too_big_answers" not in found


async def test_the_relay_before_the_narrow_link_answers(narrow_line: Lab) -> None:
    first, middle, last = narrow_line.containers
    before = [await counters(host) for host in narrow_line.hosts]
    with first.capture() as capture:
        # Fits the first link, not the second: h2 answers, in the name of the last container.
        assert await _told(first, last.ipv4, NARROW_MTU - 27) == NARROW_MTU
        answers = _answers(capture.packets(), ICMP)
    assert len(answers) == 1
    assert answers[0].src == last.mac
    after = [await counters(host) for host in narrow_line.hosts]
    told = [grown(b, a).get("too_big_answers", 0) for b, a in zip(before, after, strict=True)]
    assert told == [0, 1, 0]
    assert (await first.ping(last, size=NARROW_MTU - 28, dont_fragment=True)).received == 3
    # Other paths keep their own number.
    assert (await first.ping(middle, size=OVERLAY_MTU - 28, dont_fragment=True)).received == 3


async def test_the_relay_answers_ipv6(narrow_line: Lab) -> None:
    first, _, last = narrow_line.containers
    assert await _told(first, last.ipv6, NARROW_MTU - 47, "-6") == NARROW_MTU
    assert (await first.ping(last, size=3000, ipv6=True, count=4)).received >= 2


async def test_too_big_for_both_links(narrow_line: Lab) -> None:
    """Told twice: by the first router for its link, then by the relay for the next."""
    first, _, last = narrow_line.containers
    assert await _told(first, last.ipv4, 5000) == OVERLAY_MTU
    assert await _told(first, last.ipv4, OVERLAY_MTU - 28) == NARROW_MTU
    assert (await first.iperf(last)).gbps > 0.02


async def test_the_relay_cuts_without_df(narrow_line: Lab) -> None:
    first, _, last = narrow_line.containers
    before = await counters(narrow_line.hosts[1])
    assert (await first.ping(last, size=NARROW_MTU - 27, dont_fragment=False)).received == 3
    assert (await first.ping(last, size=5000, dont_fragment=False)).received == 3
    assert grown(before, await counters(narrow_line.hosts[1]))["fragmented_frames"] >= 3


async def test_answers_are_bounded(lab: Lab) -> None:
    """Who goes on in spite of the answers gets a bounded number of them each second."""
    one, other = lab.containers
    await one.ping(other)
    before = await counters(lab.hosts[0])
    sender = one.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    begun = time.monotonic()
    with sender:
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        for sent in range(BURST, FLOOD + 1, BURST):  # no more than the TAP device's queue holds
            for _ in range(BURST):
                with suppress(OSError):  # an answer to an earlier one
                    sender.sendto(bytes(5000), (other.ipv4, 9))

            async def counted(sent: int = sent) -> bool:
                return grown(before, await counters(lab.hosts[0]))["drop_too_big"] == sent

            await until(counted, f"{sent} packets are too big", 20.0)
    seconds = math.ceil(time.monotonic() - begun) + 1  # that the router's clock saw begin
    answers = grown(before, await counters(lab.hosts[0]))["too_big_answers"]
    assert ANSWERS_PER_SECOND <= answers <= ANSWERS_PER_SECOND * seconds


@pytest.mark.parametrize("size", [1411, 10_000, 60_000])
async def test_a_narrow_bridge_gets_fragments(unlike: Lab, size: int) -> None:
    one, other = unlike.containers
    assert (one.host.mtu("weave"), other.host.mtu("weave")) == (OVERLAY_MTU, 65535)
    before = await counters(one.host)
    assert (await other.ping(one, size=size, dont_fragment=False)).received == 3
    # and back: what answers is one packet as long as what was asked
    assert (await one.ping(other, size=size)).received == 3
    assert grown(before, await counters(one.host))["fragmented_frames"] >= 6


async def test_the_router_of_a_narrow_bridge_answers() -> None:
    """A path that carries more than the bridge at its end takes."""
    async with Lab(2, underlay_mtu=9000) as lab:
        first, second = lab.hosts
        await first.start_weft(mtu=1400)
        await second.start_weft(mtu=65535)
        await lab.wait_connected()
        one, other = lab.containers
        before = await counters(first)
        assert await _told(other, one.ipv4, 5000) == 1400
        assert await _told(other, one.ipv6, 5000, "-6") == 1400
        assert grown(before, await counters(first))["too_big_answers"] == 2
        assert (await other.ping(one, size=1372, dont_fragment=True)).received == 3
        assert (await other.ping(one, size=5000, dont_fragment=False)).received == 3


@pytest.mark.parametrize("capture", ["tap", "packet"])
async def test_a_container_with_a_larger_mtu_than_the_bridge(capture: str) -> None:
    """As those have that a router before us attached: told or cut as well, not lost."""
    async with Lab(2) as lab:
        await lab.start_weft("--capture", capture)
        one, other = lab.containers
        assert one.host.mtu("weave") == OVERLAY_MTU
        for container in lab.containers:
            container.set_mtu(65535)
        assert await _told(one, other.ipv4, 5000) == OVERLAY_MTU
        assert await _told(one, other.ipv6, 5000, "-6") == OVERLAY_MTU
        for size in (1411, 10_000, 60_000):
            assert (await one.ping(other, size=size, dont_fragment=False)).received == 3
        assert (await one.iperf(other, length=10_000, bitrate="50M")).gbps > 0.04
