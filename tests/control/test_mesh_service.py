"""Members of a mesh on loopback: what their routers are told, and what is remembered.

Routers are stood in for by :class:`Router`, which says what a router's forwarders would: the real
ones run in tests/netns.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from base.errors import ConfigError
from base.ipc import (
    SCHEMA_VERSION,
    BroadcastRoute,
    Connection,
    Delta,
    MessageReader,
    OverlayEstablished,
    OverlayFailed,
    OverlayMessage,
    RemoteAddress,
    RouterHello,
    Snapshot,
    ToControl,
    decode_for_router,
    encode,
)
from base.names import PeerName
from control.link import LinkServer
from control.link_core import Action, Close, LinkCore, OverlayNews, RouterJoined, Send
from control.mesh_service import MeshService, MeshSettings, parse_subnets
from control.password import Password
from control.state import StateStore

pytestmark = pytest.mark.anyio

HOST = "127.0.8.{}"
OFFER = "aes-256-gcm secretbox"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST.format(1), 0))
        return int(probe.getsockname()[1])


class Router(LinkServer):
    """A link with a router that is not there: it keeps what a router would have been told."""

    def __init__(self, service: MeshService) -> None:
        super().__init__(service.snapshot(), lambda _: None, service.router_news)
        self._service = service
        self._machine = LinkCore(service.snapshot())
        self._reader = MessageReader()
        self._session = 0
        self.told: list[OverlayMessage] = []
        self.connections: dict[bytes, Connection] = {}
        self.snapshot = service.snapshot()
        self.join(1)

    def join(self, instance: int) -> None:
        """A router process says hello."""
        self._session = self._machine.open()
        self.connections = {}
        self.say(RouterHello(SCHEMA_VERSION, 1, instance))

    def say(self, message: ToControl) -> None:
        self._do(self._machine.receive(self._session, encode(message)))

    def publish(self, state: Snapshot) -> bool:
        self._do(self._machine.replace(state))
        self.snapshot = self._machine.snapshot
        return True

    def tell(self, message: OverlayMessage) -> None:
        self._do(self._machine.tell(message))

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(session, data) if session == self._session:
                    for body in self._reader.feed(data):
                        self._take(decode_for_router(body))
                case RouterJoined() | OverlayNews():
                    self._service.router_news(action)
                case Close(fault=fault):
                    assert not fault, action

    def _take(self, message: object) -> None:
        match message:
            case Snapshot(connections=connections):
                self.connections = {each.peer: each for each in connections}
            case Delta(connections=connections, connections_gone=gone):
                for name in gone:
                    del self.connections[name]
                self.connections |= {each.peer: each for each in connections}
            case OverlayMessage():
                assert any(each.conn == message.conn for each in self.connections.values())
                self.told.append(message)


class Member:
    """A service with its state file and its router."""

    def __init__(
        self,
        number: int,
        port: int,
        folder: Path,
        password: bytes | None,
        ciphers: str,
        **more: object,
    ) -> None:
        self.name = PeerName.from_int(0xCE0000000000 + number)
        self.store = StateStore.open(f"{folder}/{number}-")
        settings = MeshSettings(
            nickname=f"host{number}",
            name=self.name,
            host=HOST.format(number),
            port=port,
            ciphers=ciphers,
            **more,  # type: ignore[arg-type]
        )
        self.service = MeshService(settings, Password(password), self.store)
        self.router = Router(self.service)
        self.service.attach(self.router)

    def to(self, other: Member) -> Connection | None:
        return self.router.connections.get(other.name.octets)


class Mesh:
    """Members by number, of one deployment."""

    def __init__(self, folder: Path, password: bytes | None) -> None:
        self.port = _free_port()
        self._folder = folder
        self._password = password
        self._stack = AsyncExitStack()

    async def start(self, number: int, *peers: int, ciphers: str = OFFER, **more: object) -> Member:
        texts = tuple(HOST.format(peer) for peer in peers)
        member = Member(
            number, self.port, self._folder, self._password, ciphers, peers=texts, **more
        )
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(member.store.close)
        self._stack.callback(tasks.cancel_scope.cancel)
        await tasks.start(member.service.run)
        return member

    async def stop(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def _mesh(folder: Path, password: bytes | None = None) -> AsyncIterator[Mesh]:
    mesh = Mesh(folder, password)
    try:
        yield mesh
    finally:
        await mesh.stop()


async def _until(condition: Callable[[], object], limit_s: float = 10) -> None:
    with anyio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - nothing tells when a service has changed
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("offers", "cipher"),
    [
        ((OFFER, OFFER), "aes-256-gcm"),
        ((OFFER, "secretbox"), "secretbox"),
        (("", OFFER), "secretbox"),
    ],
)
async def test_both_ends_have_the_same_key_and_cipher(
    tmp_path: Path, offers: tuple[str, str], cipher: str
) -> None:
    async with _mesh(tmp_path, b"correct horse") as mesh:
        one = await mesh.start(1, ciphers=offers[0])
        two = await mesh.start(2, 1, ciphers=offers[1])
        await _until(lambda: one.to(two) and two.to(one))
        here, there = one.to(two), two.to(one)
        assert here is not None
        assert there is not None
        assert (here.cipher, there.cipher) == (cipher, cipher)
        assert here.key == there.key
        assert len(here.key) == 32
        assert here.uid == there.uid
        assert (here.outbound, there.outbound) == (False, True)
        # who dialled knows the other's address; who was dialled has to hear it
        assert (there.addr, there.port) == (HOST.format(1), mesh.port)
        assert (here.addr, here.port) == ("", 0)


async def test_without_a_password_nothing_is_sealed(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        one, two = await mesh.start(1), await mesh.start(2, 1)
        await _until(lambda: one.to(two))
        assert one.to(two).key == b""  # type: ignore[union-attr]


@pytest.mark.parametrize("both", [False, True])
async def test_only_subnets_that_both_trust_go_in_clear(tmp_path: Path, both: bool) -> None:
    trusted = parse_subnets("127.0.8.0/24")
    async with _mesh(tmp_path, b"correct horse") as mesh:
        one = await mesh.start(1, trusted_subnets=trusted)
        two = await mesh.start(2, 1, trusted_subnets=trusted if both else ())
        await _until(lambda: one.to(two) and two.to(one))
        assert bool(one.to(two).key) is not both  # type: ignore[union-attr]


async def test_the_sleeve_side_comes_to_life_and_routes_follow(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        one, two = await mesh.start(1), await mesh.start(2, 1)
        await _until(lambda: one.to(two) and two.to(one))
        for here, there in ((one, two), (two, one)):
            connection = here.to(there)
            assert connection is not None
            here.router.say(RemoteAddress(connection.peer, connection.conn, "192.0.2.9", 7))
            here.router.say(OverlayMessage(connection.peer, connection.conn, 1))
        await _until(lambda: one.router.told and two.router.told)
        for here, there in ((one, two), (two, one)):
            (said,) = here.router.told
            assert (said.kind, said.data) == (1, b"")
            here.router.say(OverlayEstablished(there.name.octets, said.conn))
        await _until(lambda: one.router.snapshot.unicast and two.router.snapshot.unicast)
        connection = one.to(two)
        assert connection is not None
        assert (connection.addr, connection.port) == ("192.0.2.9", 7)
        assert (connection.established, connection.acked) == (True, True)
        (route,) = one.router.snapshot.unicast
        assert (route.dst, route.via) == (two.name.octets, two.name.octets)
        one.router.say(OverlayFailed(connection.peer, connection.conn, "no heartbeat for 60 s"))
        await _until(lambda: two.to(one) is None or two.to(one).conn != said.conn)  # type: ignore[union-attr]
        assert not [each for each in one.router.snapshot.unicast if not one.router.connections]


async def test_a_fresh_router_gets_new_keys(tmp_path: Path) -> None:
    async with _mesh(tmp_path, b"correct horse") as mesh:
        one, two = await mesh.start(1), await mesh.start(2, 1)
        keys: set[bytes] = set()
        for instance in range(2, 4):
            await _until(lambda: one.to(two) and two.to(one))
            connection = one.to(two)
            assert connection is not None
            assert connection.key not in keys
            keys.add(connection.key)
            one.router.join(instance)
            assert one.to(two) is None
        assert len(keys) == 2


async def test_connections_in_clear_outlive_the_router_once_their_life_is_complete(
    tmp_path: Path,
) -> None:
    async with _mesh(tmp_path) as mesh:
        one, two = await mesh.start(1), await mesh.start(2, 1)
        await _until(lambda: one.to(two))
        first = one.to(two)
        assert first is not None
        one.router.join(2)
        await _until(lambda: one.to(two) and one.to(two).conn != first.conn)  # type: ignore[union-attr]
        second = one.to(two)
        assert second is not None
        one.router.say(OverlayMessage(second.peer, second.conn, 1))
        one.router.say(OverlayEstablished(second.peer, second.conn))
        await _until(lambda: one.to(two) and one.to(two).established)  # type: ignore[union-attr]
        one.router.join(3)
        third = one.to(two)
        assert third is not None
        assert (third.conn, third.established, third.acked) == (second.conn, True, True)


async def test_a_name_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1)
        folder = tmp_path / "clone"
        clone = Member(1, mesh.port, folder, None, OFFER, peers=(HOST.format(1),))
        clone.service.node._host = HOST.format(2)  # the same name on another host
        with pytest.raises(ExceptionGroup) as caught:
            await clone.service.run()
        (error,) = caught.value.exceptions
        assert isinstance(error, ConfigError)
        assert str(error).startswith(f"--name: another router at {HOST.format(1)}:{mesh.port}")
        assert clone.store.peers() == []
        assert not clone.store.crashed()
        clone.store.close()
        # the router that was there first goes on, and says so
        assert "has the name" in one.service.membership(one.router.snapshot, None).warnings[0]


async def test_peers_are_remembered_as_the_original_does(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1, 2, 3)
        assert await one.service.connect([HOST.format(4)], replace=False) == []
        await one.service.forget([HOST.format(2)])
        edited = [HOST.format(3), HOST.format(4)]
        assert one.store.peers() == edited
    # it did not end in order: the edited peers win over those given
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1, 2)
        assert list(one.service.node.core.maker.direct) == edited
        one.service.stopped()
    # it did, and resumes
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1, resume=True)
        assert list(one.service.node.core.maker.direct) == edited
        one.service.stopped()
    # stop and launch forgets them
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1, 2)
        assert list(one.service.node.core.maker.direct) == [HOST.format(2)]
        assert one.store.peers() == [HOST.format(2)]


async def test_resume_takes_no_peers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume: "):
        Member(1, 1, tmp_path, None, "", peers=("x",), resume=True)


async def test_alone_its_broadcasts_go_to_nobody(tmp_path: Path) -> None:
    """Which a report says, as the original's; not that there are no routes."""
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1)
        ours = BroadcastRoute(one.service.snapshot().name, ())
        assert one.service.snapshot().broadcast == (ours,)


async def test_connect_tells_of_each_peer_it_refuses(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1)
        errors = await one.service.connect(
            ["no.such.host.invalid", HOST.format(2), "x:99999"], replace=False
        )
        assert len(errors) == 2
        assert '"no.such.host.invalid" has no IPv4 address' in errors[0]
        assert list(one.service.node.core.maker.direct) == [HOST.format(2)]
        # all or nothing when it would throw others away
        assert await one.service.connect(["no.such.host.invalid"], replace=True)
        assert one.store.peers() == [HOST.format(2)]
        assert await one.service.connect([HOST.format(3)], replace=True) == []
        assert one.store.peers() == [HOST.format(3)]


async def test_a_peer_that_does_not_resolve_ends_a_first_start_only(tmp_path: Path) -> None:
    member = Member(1, _free_port(), tmp_path, None, "", peers=("no.such.host.invalid",))
    with pytest.raises(ConfigError, match=r'peer "no.such.host.invalid"'):
        await member.service.run()
    member.store.set_peers(["no.such.host.invalid", HOST.format(2)])
    member.store.begin_run()
    member.store.close()
    async with _mesh(tmp_path) as mesh:
        one = await mesh.start(1)
        assert list(one.service.node.core.maker.direct) == [HOST.format(2)]
        assert one.store.peers() == [HOST.format(2), "no.such.host.invalid"]


@pytest.mark.parametrize("text", ["10.0.0.0", "x/8", "10.0.0.0/33", "10.0.0.0/8,,y"])
def test_bad_subnets(text: str) -> None:
    with pytest.raises(ConfigError, match="--trusted-subnets: "):
        parse_subnets(text)


def test_subnets_may_have_host_bits() -> None:
    assert [str(each) for each in parse_subnets(" 10.1.2.3/8, fd00::/8 ")] == [
        "10.0.0.0/8",
        "fd00::/8",
    ]


@pytest.mark.parametrize(
    ("password", "version_min", "versions", "warned"),
    [
        (None, None, (1, 2), False),
        (b"correct horse", None, (2, 2), False),
        (b"correct horse", 1, (1, 2), True),
        (None, 2, (2, 2), False),
    ],
)
async def test_versions_of_the_protocol_in_status(
    tmp_path: Path,
    password: bytes | None,
    version_min: int | None,
    versions: tuple[int, int],
    warned: bool,
) -> None:
    member = Member(1, 0, tmp_path, password, OFFER, version_min=version_min)
    view = member.service.membership(member.router.snapshot, None)
    assert view.protocol == versions
    assert any("--min-protocol-version" in text for text in view.warnings) == warned
    member.store.close()
