"""The demo's work: build, measure every pair, follow one frame, ask every node for its report."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import msgspec

from base.errors import ConfigError, WeftError
from lab import demo_addresses, demo_view, frames, plan, preflight
from lab.container import Container
from lab.decode import RECORD_HEADER_LEN, SEALED_HEADER_LEN, Decoder
from lab.lab import Lab
from lab.process import CommandError

_PINGS = 40
_PING_INTERVAL_S = 0.005
_MARK_BYTES = 777  # payload of the followed ping: nothing else here has that length
_HEADERS_BYTES = 14 + 20 + 8
_SEALED_BYTES = SEALED_HEADER_LEN + RECORD_HEADER_LEN + _HEADERS_BYTES + _MARK_BYTES


class PairResult(msgspec.Struct, frozen=True):
    """From one container to another. Figures are None when that test failed."""

    from_: str = msgspec.field(name="from")
    to: str
    ok: bool
    ping_ms: float | None
    tcp_gbps: float | None
    udp_gbps: float | None
    mtu: int


class RawResult(msgspec.Struct, frozen=True):
    """The same machine without an overlay: veth and bridges only."""

    ping_ms: float
    tcp_gbps: float
    udp_gbps: float


class LinkResult(msgspec.Struct, frozen=True):
    """One connection as ``node`` sees it; ``mtu`` in bytes, None what it does not know yet."""

    node: str
    peer: str
    outbound: bool
    state: str
    cipher: str
    mtu: int | None
    rtt_ms: float | None
    degraded: str


class Summary(msgspec.Struct, frozen=True):
    """What ``--json`` prints; ``nodes`` is their number."""

    pairs: tuple[PairResult, ...]
    connections: tuple[LinkResult, ...]
    addresses: demo_addresses.Addresses
    raw: RawResult
    nodes: int
    encrypted: bool
    topology: str


class Hop(msgspec.Struct, frozen=True):
    """A place where the followed frame was seen: what it looked like, and its bytes there."""

    place: str
    lines: tuple[str, ...]
    data: bytes


class Findings(msgspec.Struct, frozen=True):
    """Everything the demo shows."""

    summary: Summary
    way: tuple[Hop, ...]
    reports: dict[str, dict[str, Any]]
    errors: tuple[str, ...]


Step = Callable[[str], None]


@dataclass(slots=True, frozen=True)
class Options:
    """What the user wants to see; ``seconds`` is the length of each test."""

    nodes: int
    topology: str
    seconds: int
    encrypted: bool
    as_json: bool


def main(options: Options) -> int:
    """Run it and print; the exit code.

    Raises:
        WeftError: it cannot run here, or the nodes do not come up.
    """
    plan.check(options.nodes, options.topology)
    if options.nodes < 2:
        raise ConfigError(f"--nodes {options.nodes}: a demo needs at least 2")
    if options.seconds < 1:
        raise ConfigError(f"--seconds {options.seconds}: give at least 1")
    preflight.check((*preflight.ALWAYS, "iperf3"))
    return anyio.run(_until_signal, options)


async def _until_signal(options: Options) -> int:
    """Run the demo; a signal cancels it, which takes the lab down in order."""
    caught = 0
    failed: WeftError | None = None
    findings: Findings | None = None
    async with anyio.create_task_group() as group:

        async def watch(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            nonlocal caught
            with anyio.open_signal_receiver(
                signal.SIGINT, signal.SIGTERM, signal.SIGHUP
            ) as signals:
                task_status.started()
                async for number in signals:
                    caught = number
                    group.cancel_scope.cancel()
                    return

        await group.start(watch)
        try:
            findings = await _run(options)
        except WeftError as err:  # raised below, outside the group that would wrap it
            failed = err
        group.cancel_scope.cancel()
    if caught:
        return 128 + caught
    if failed is not None:
        raise failed
    assert findings is not None
    for error in findings.errors:
        demo_view.complain(error)
    if options.as_json:
        print(msgspec.json.encode(findings.summary).decode(), flush=True)
    else:
        demo_view.show(findings)
    return 0 if all(pair.ok for pair in findings.summary.pairs) else 1


async def _run(options: Options) -> Findings:
    nodes, seconds = options.nodes, options.seconds
    password = secrets.token_urlsafe(24) if options.encrypted else None
    tests = nodes * (nodes - 1)
    errors: list[str] = []
    with demo_view.progress(total=tests + 7) as step:
        step(f"build {nodes} hosts")
        async with Lab(nodes, options.topology, containers=0) as lab:
            raw_ends = lab.raw_pair()
            step("start the routers")
            vote = f"--ipalloc-init=consensus={nodes}"
            await lab.start_weft(vote, mesh=True, password=password, connect_timeout_s=None)
            step("divide the addresses")
            division_s = await demo_addresses.divide(lab)
            step("attach containers")
            for host in lab.hosts:
                guest = lab.new_guest(host, plan.container_name(host.index, 1, 1))
                await guest.attach()
                host.containers.append(guest)
            try:
                await lab.wait_connected()
            except CommandError as err:
                errors.append(str(err))  # the table will show which pairs fail
            step("measure raw veth")
            raw = await _measure_raw(*raw_ends, seconds)
            pairs = [
                await measure_pair(one, other, seconds, step, errors)
                for one, other in _ordered_pairs(lab)
            ]
            if errors:
                errors += [f"{host.name}: {line}" for host in lab.hosts for line in host.alarms()]
            step("follow one frame")
            way = await follow(lab, lab.containers[0], _far_end(lab), encrypted=options.encrypted)
            reports = {host.name: await host.report() for host in lab.hosts}
            step("lose a node")
            addresses = await demo_addresses.lose_one(lab, division_s)
            step("remove everything")
    links = tuple(_links(reports))
    summary = Summary(tuple(pairs), links, addresses, raw, nodes, options.encrypted, lab.topology)
    return Findings(summary, way, reports, tuple(errors))


def _links(reports: dict[str, dict[str, Any]]) -> Iterator[LinkResult]:
    for node, report in reports.items():
        for each in report["Router"]["Connections"] or ():
            yield LinkResult(
                node=node,
                peer=each["NickName"] or each["Address"],
                outbound=each["Outbound"],
                state=each["State"],
                cipher=each["Cipher"] or "none",
                mtu=each["MTU"],
                rtt_ms=each["RTTMilliseconds"],
                degraded=each["Degraded"] or "",
            )


def _ordered_pairs(lab: Lab) -> Iterator[tuple[Container, Container]]:
    for one in lab.containers:
        for other in lab.containers:
            if one is not other:
                yield one, other


def _far_end(lab: Lab) -> Container:
    """The container most hops away from the first."""
    index = len(lab.containers) // 2 if lab.topology == "ring" else -1
    return lab.containers[index]


async def _measure_raw(one: Container, other: Container, seconds: int) -> RawResult:
    await one.ping(other)  # neighbour tables
    ping = await one.ping(other, count=_PINGS, interval_s=_PING_INTERVAL_S)
    tcp = await one.iperf(other, seconds=seconds)
    udp = await one.iperf(other, seconds=seconds, udp=True, length=_datagram_len(one))
    return RawResult(
        ping_ms=round(ping.median_ms, 4), tcp_gbps=round(tcp.gbps, 3), udp_gbps=round(udp.gbps, 3)
    )


def _datagram_len(container: Container) -> int:
    return container.mtu(container.interface) - 28


async def measure_pair(
    one: Container, other: Container, seconds: int, step: Step, errors: list[str]
) -> PairResult:
    """Ping, TCP and UDP from ``one`` to ``other``; what fails is told in ``errors``."""
    step(f"{one.name} → {other.name}")
    mtu = one.mtu(one.interface)
    ping_ms = tcp_gbps = udp_gbps = None
    try:
        ping = await one.ping(other, count=_PINGS, interval_s=_PING_INTERVAL_S)
        if not ping.ok:
            raise WeftError(f"none of {ping.sent} pings was answered")
        ping_ms = round(ping.median_ms, 4)
        tcp_gbps = round((await one.iperf(other, seconds=seconds)).gbps, 3)
        udp = await one.iperf(other, seconds=seconds, udp=True, length=_datagram_len(one))
        udp_gbps = round(udp.gbps, 3)
    except WeftError as err:
        errors.append(f"{one.name} → {other.name}: {err}")
    return PairResult(
        from_=one.name,
        to=other.name,
        ok=bool(tcp_gbps and udp_gbps),
        ping_ms=ping_ms,
        tcp_gbps=tcp_gbps,
        udp_gbps=udp_gbps,
        mtu=mtu,
    )


async def follow(
    lab: Lab, one: Container, other: Container, *, encrypted: bool = False
) -> tuple[Hop, ...]:
    """Send one marked ping and return the places where its request was seen, in order of time.

    An encrypted datagram is known by its length, and by its way: the answer goes the other.
    """
    places = [(node, node.interface) for node in (one, other)]
    captures = [node.capture(interface) for node, interface in places]
    uplinks = [host.capture() for host in lab.hosts]
    try:
        await one.ping(other, count=1, size=_MARK_BYTES)
        seen: list[tuple[int, Hop]] = []
        for (node, interface), capture in zip(places, captures, strict=True):
            verb = "leaves" if node is one else "reaches"
            for packet in capture.packets():
                if _is_marked(packet.data, one, other):
                    lines = (frames.describe(packet.data),)
                    place = f"{verb} {node.name} by {interface}"
                    seen.append((packet.time_ns, Hop(place, lines, packet.data)))
        by_address = {host.address: host.name for host in lab.hosts}
        nicks = {host.peer_name: f"{host.peer_name}({host.name})" for host in lab.hosts}
        for host, capture in zip(lab.hosts, uplinks, strict=True):
            decoder = Decoder()
            for packet in capture.packets():
                datagram = decoder.feed(packet.data)
                if datagram is None or not packet.outgoing:
                    continue
                if encrypted:
                    marked = len(datagram.payload) == _SEALED_BYTES
                    outside = datagram.describe_sealed() if marked else []
                else:
                    marked = any(_is_marked(each.frame, one, other) for each in datagram.records)
                    outside = datagram.describe()
                if marked:
                    place = f"underlay {host.name} → {by_address[datagram.destination]}"
                    told = tuple(_with_nicks(line, nicks) for line in outside)
                    seen.append((packet.time_ns, Hop(place, told, packet.data)))
    finally:
        for capture in (*captures, *uplinks):
            capture.close()
    way = [hop for _, hop in sorted(seen, key=lambda item: item[0])]
    if encrypted:  # the answer has the same length, and comes when the request has arrived
        arrival = next((at for at, hop in enumerate(way) if hop.place.startswith("reaches")), -1)
        way = way[: arrival + 1]
    return tuple(way)


def _with_nicks(line: str, nicks: dict[str, str]) -> str:
    for name, with_nick in nicks.items():
        line = line.replace(name, with_nick)
    return line


def _is_marked(frame: bytes, one: Container, other: Container) -> bool:
    ends = bytes(map(int, f"{one.ipv4}.{other.ipv4}".split(".")))
    return len(frame) == _HEADERS_BYTES + _MARK_BYTES and frame[26:34] == ends
