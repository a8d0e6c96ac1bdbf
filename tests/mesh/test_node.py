"""Nodes on real sockets of the loopback device."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from base.errors import ConfigError
from base.names import PeerName
from mesh import events
from mesh.core import MeshOptions
from mesh.features import Features
from mesh.intro import Intro, encode_header
from mesh.node import SEGMENT_LEN, MeshNode, resolve

pytestmark = pytest.mark.anyio

#: Every node has an address of its own, so that all of them can use one port.
HOST = "127.0.7.{}"
NODES_MAX = 5


def _free_port() -> int:
    """Free on every node's address, and none that the kernel gives to those who dial."""
    for port in random.sample(range(20_000, 30_000), 100):
        with ExitStack() as stack, suppress(OSError):
            for number in range(1, NODES_MAX + 1):
                probe = stack.enter_context(socket.socket())
                probe.bind((HOST.format(number), port))
            return port
    raise AssertionError("no port is free")


class Recorder:
    """A node, and an overlay that works at once."""

    def __init__(self, number: int, port: int, password: bytes | None) -> None:
        self.seen: list[events.Event] = []
        name = PeerName.from_int(0xCE0000000000 + number)
        options = MeshOptions(name, f"host{number}", 1000 + number, port=port, password=password)
        self.node = MeshNode(
            options,
            host=HOST.format(number),
            handler=self.handle,
            rng=random.Random(number),
        )

    def handle(self, event: events.Event) -> None:
        self.seen.append(event)
        core = self.node.core
        now = anyio.current_time()
        if isinstance(event, events.ConnectionAdded):
            core.send_overlay_control(event.conn, "sleeve", 1, b"", now)
        elif isinstance(event, events.OverlayControl) and event.kind == 1:
            core.overlay_established(event.conn, now)

    def established(self) -> int:
        records = self.node.core.peers.ourself.connections.values()
        return sum(record.established for record in records)


@asynccontextmanager
async def _nodes(count: int, password: bytes | None = None) -> AsyncIterator[list[Recorder]]:
    port = _free_port()
    recorders = [Recorder(number, port, password) for number in range(1, count + 1)]
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for recorder in recorders:
            await tasks.start(recorder.node.run)
        yield recorders
        tasks.cancel_scope.cancel()


async def _until(condition: object, limit_s: float = 15) -> None:
    assert callable(condition)
    with anyio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - nothing tells when a core has changed
            await anyio.sleep(0.02)


@pytest.mark.parametrize("password", [None, b"a password"])
async def test_three_nodes_from_one_target(password: bytes | None) -> None:
    async with _nodes(3, password) as nodes:
        for recorder in nodes[1:]:
            assert await recorder.node.connect([HOST.format(1)]) == []
        await _until(lambda: all(recorder.established() == 2 for recorder in nodes))
        await _until(lambda: all(len(r.node.core.routes.frame_routes()) == 3 for r in nodes))
        (first, *_) = [e for e in nodes[0].seen if isinstance(e, events.ConnectionAdded)]
        assert first.encrypted == (password is not None)


async def test_a_node_that_stops_is_forgotten() -> None:
    async with _nodes(2) as nodes:
        other = Recorder(3, nodes[0].node.port, None)
        async with anyio.create_task_group() as tasks:
            await tasks.start(other.node.run)
            await other.node.connect([HOST.format(1)])
            await nodes[1].node.connect([HOST.format(1)])
            await _until(lambda: nodes[0].established() == 2)
            tasks.cancel_scope.cancel()
        await _until(lambda: len(nodes[0].node.core.peers) == 2)
        await _until(lambda: any(isinstance(e, events.PeersGone) for e in nodes[0].seen))


async def _read_to_the_end(stream: SocketStream) -> bytes:
    heard = b""
    with anyio.fail_after(5):
        try:
            while True:
                heard += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return heard


async def test_noise_is_refused_and_the_node_lives() -> None:
    async with _nodes(2) as nodes:
        port = nodes[0].node.port
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"weave\2\2\0\xff\xff\xff\xff", b""):
            stream = await anyio.connect_tcp(HOST.format(1), port)
            async with stream:
                if noise:
                    await stream.send(noise)
                    await _read_to_the_end(stream)
        await nodes[1].node.connect([HOST.format(1)])
        await _until(lambda: nodes[0].established() == 1)
        await _until(lambda: len(nodes[0].node.core.connections()) == 1)


async def test_who_is_refused_hears_who_refuses() -> None:
    """Even one whose whole introduction comes at once, before we have said any of ours."""
    async with _nodes(1) as (victim,):
        ours = Features(victim.node.core.options.name, "namesake", 5, 6)
        intro = Intro(ours, outbound=True)
        intro.receive(encode_header(2, 2) + b"\0")
        stream = await anyio.connect_tcp(HOST.format(1), victim.node.port)
        async with stream:
            await stream.send(intro.bytes_to_send())
            heard = await _read_to_the_end(stream)
        assert heard.startswith(encode_header(1, 2) + b"\0")
        done = intro.receive(heard[len(encode_header(1, 2)) + 1 :])
        assert done is not None
        assert done.features.uid == victim.node.core.options.uid
        collisions = [event for event in victim.seen if isinstance(event, events.NameCollision)]
        assert [event.nick for event in collisions] == ["namesake"]


async def test_a_port_in_use_is_told_in_one_line() -> None:
    async with _nodes(1) as nodes:
        twin = Recorder(1, nodes[0].node.port, None)
        with pytest.raises(ConfigError, match="in use; is another router running here"):
            await twin.node.run()


async def test_unresolvable_peers_do_not_stop_the_others() -> None:
    async with _nodes(2) as nodes:
        errors = await nodes[1].node.connect(["no.such.host.invalid", "x:y", HOST.format(1)])
        assert len(errors) == 2
        assert '"no.such.host.invalid" has no IPv4 address' in errors[0]
        assert '"y" is not a port number' in errors[1]
        await _until(lambda: nodes[0].established() == 1)
        nodes[1].node.forget([HOST.format(1)])
        assert nodes[1].node.core.maker.direct == {}


async def test_dial_failure_is_kept_with_the_target() -> None:
    async with _nodes(1) as nodes:
        await nodes[0].node.connect([f"{HOST.format(9)}:1"])
        target = nodes[0].node.core.maker.targets
        await _until(lambda: bool(target) and next(iter(target.values())).last_error is not None)
        assert "refused" in str(next(iter(target.values())).last_error)


async def test_names_are_resolved_to_ipv4() -> None:
    peer = await resolve("localhost:6783")
    assert (peer.text, peer.ip, peer.port) == ("localhost:6783", "127.0.0.1", 6783)
    with pytest.raises(ConfigError, match=r'"nowhere\.invalid" has no IPv4 address'):
        await resolve("nowhere.invalid")
    for text, shown in (("[::1]:5", "::1:5"), ("::1", "::1:0"), (":bad:", ":bad::0")):
        with pytest.raises(ConfigError) as caught:
            await resolve(text)
        assert str(caught.value) == f"address {shown}: too many colons in address"


async def test_a_flood_from_one_address_does_not_keep_a_peer_out() -> None:
    async with _nodes(2) as (victim, peer):
        with ExitStack() as opened:
            for count in range(400):
                sock = opened.enter_context(socket.socket())
                sock.bind(("127.0.7.200", 0))
                sock.connect((HOST.format(1), victim.node.port))  # the kernel answers
                if count % 20 == 0:
                    await anyio.lowlevel.checkpoint()
            await peer.node.connect([HOST.format(1)])
            await _until(lambda: victim.established() == 1 and peer.established() == 1, 5)
            await _until(lambda: victim.node.refused > 200)


@pytest.mark.parametrize("dials", [True, False], ids=["we dial", "we are dialled"])
async def test_either_end_makes_both_send_small_segments(dials: bool) -> None:
    """The other end is a stranger that asks for nothing, as a Weave router."""
    async with _nodes(1) as (one,):
        if dials:
            with socket.create_server((HOST.format(2), 0)) as server:
                server.setblocking(False)
                await one.node.connect([f"{HOST.format(2)}:{server.getsockname()[1]}"])
                await anyio.wait_readable(server)
                theirs, _ = server.accept()
        else:
            theirs = socket.create_connection((HOST.format(1), one.node.port))
        with theirs:
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT_LEN
