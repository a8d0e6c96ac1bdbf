"""Neighbours that cost little, for measuring one real node in a large mesh.

    python -m bench.mesh.crowd NODE_IP COUNT PASSWORD_FILE {part|complete}

Runs in the node's network namespace. Each neighbour has an address of its own there (on the
loopback device), connects to the node over TCP with the password, keeps its datagrams' side alive
over UDP, and now and then gossips the topology of a full mesh in which nothing changes: as often as
the node would hear it there, ``part`` of it as our routers send, or the ``complete`` one as the
original's. They do not know each other. Prints ``ready`` on standard error once the node has
acknowledged the datagrams of all, and runs until it is killed.

Source of truth: mesh specification 3, 5, 9.5, 9.6; sleeve specification 5, 6.
"""

from __future__ import annotations

import ipaddress
import math
import random
import socket
import sys
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import SocketStream, UDPSocket

from base.names import PeerName
from crypto.session import SleeveSession
from mesh.features import Features
from mesh.framing import frame
from mesh.gossip import GOSSIP_INTERVAL_S
from mesh.gossip_router import PART_RECORDS
from mesh.intro import Intro, IntroDone
from mesh.peer import ConnectionRecord, Peer
from mesh.protocol import Envelope, Tag, encode_envelope
from mesh.topology import CHANNEL, encode_update

PORT: Final = 6783
FIRST_ADDRESS: Final = ipaddress.IPv4Address("198.18.0.0")
_HEARTBEAT_LEN: Final = 22
_FRAG_TEST_LEN: Final = 60001
_HEARTBEAT_ACK, _FRAGMENTS_ACK, _MTU_ACK = 1, 2, 3
_ETH_LEN: Final = 14
_RECORD_HEAD: Final = 14


def address(number: int) -> str:
    """Of neighbour ``number``, from 1."""
    return str(FIRST_ADDRESS + number)


def name(number: int) -> PeerName:
    """Of neighbour ``number``."""
    return PeerName.from_int(0xC20000000000 + number)


def records(count: int, node: PeerName, node_address: str) -> list[Peer]:
    """What a full mesh of the node and ``count`` neighbours says of each of these."""
    everybody = {node: node_address, **{name(n): address(n) for n in range(1, count + 1)}}
    found = []
    for number in range(1, count + 1):
        peer = Peer(name(number), f"crowd{number}", number, 5, number)
        links = {
            remote: ConnectionRecord(remote, f"{ip}:{PORT}", outbound=True, established=True)
            for remote, ip in everybody.items()
            if remote != peer.name
        }
        peer.set_connections(links)
        found.append(peer)
    return found


class Neighbour:
    """One of them."""

    def __init__(self, number: int, node_ip: str, password: bytes) -> None:
        self.number = number
        self._node_ip = node_ip
        self._password = password
        self._done: IntroDone | None = None
        self._uid = 0
        self._told = False
        self._session: SleeveSession | None = None
        self._out: SocketStream | None = None
        self.node: PeerName | None = None
        self.established = anyio.Event()

    async def run(self) -> None:
        """Until the node closes the connection."""
        own = address(self.number)
        features = Features(
            name(self.number),
            f"crowd{self.number}",
            self.number,
            7,
            self.number,
            False,
            ("sleeve",),
        )
        intro = Intro(features, outbound=True, password=self._password)
        stream = await anyio.connect_tcp(self._node_ip, PORT, local_host=own)
        udp = await anyio.create_udp_socket(
            family=socket.AF_INET, local_host=own, local_port=PORT, reuse_port=False
        )
        async with stream, udp, anyio.create_task_group() as tasks:
            self._out = stream
            await stream.send(intro.bytes_to_send())
            while self._done is None:
                self._done = intro.receive(await stream.receive())
                if said := intro.bytes_to_send():
                    await stream.send(said)
            theirs = self._done.features
            self.node, self._uid = theirs.name, features.conn_id ^ theirs.conn_id
            if self._done.key is None:
                raise RuntimeError("the node has no password")
            self._session = SleeveSession(self._done.key, outbound=True)
            tasks.start_soon(self._hear_datagrams, udp)
            tasks.start_soon(self._heartbeats, udp)
            await self._hear_messages(stream)
            tasks.cancel_scope.cancel()

    async def say(self, message: bytes) -> None:
        """One message over TCP. One task at a time."""
        if self._done is not None and self._out is not None:
            await self._out.send(frame(self._done.sealer.seal(message)))

    async def _hear_messages(self, stream: SocketStream) -> None:
        if (done := self._done) is None:
            return
        while True:
            while (body := done.frames.next_body()) is not None:
                message = done.opener.open(body)
                control = message[:1] == bytes((Tag.OVERLAY_CONTROL,))
                if control and message[2] == _HEARTBEAT_ACK:
                    self.established.set()
            try:
                done.frames.feed(await stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async def _heartbeats(self, udp: UDPSocket) -> None:
        if self.node is None or self._session is None:
            return
        own = name(self.number).octets
        body = bytes(_ETH_LEN) + self._uid.to_bytes(8, "big")
        record = own + self.node.octets + _HEARTBEAT_LEN.to_bytes(2, "big") + body
        while True:
            datagram = self._session.seal(own, record, df=True)
            await udp.sendto(datagram, self._node_ip, PORT)
            with anyio.move_on_after(0.5 if not self.established.is_set() else 10.0):
                await anyio.sleep_forever()
            if self.established.is_set():
                await self.say(bytes((Tag.HEARTBEAT,)))

    async def _hear_datagrams(self, udp: UDPSocket) -> None:
        async for datagram, _ in udp:
            if self._session is None:
                return
            _, opened = self._session.open(datagram)
            length = int.from_bytes(opened[12:14], "big")
            if any(opened[_RECORD_HEAD : _RECORD_HEAD + _ETH_LEN]):
                continue  # a container's frame
            if length == _HEARTBEAT_LEN:
                if not self._told:
                    self._told = True
                    await self._control(_HEARTBEAT_ACK)
            elif length == _FRAG_TEST_LEN:
                await self._control(_FRAGMENTS_ACK)
            else:
                await self._control(_MTU_ACK, (length - _ETH_LEN).to_bytes(2, "big"))

    async def _control(self, kind: int, data: bytes = b"") -> None:
        await self.say(bytes((Tag.OVERLAY_CONTROL, 0, kind)) + data)


async def _gossip(crowd: list[Neighbour], node_ip: str, how: str) -> None:
    """What the node hears in a full mesh: 2·log2(N) neighbours choose it in each interval."""
    node = crowd[0].node
    if node is None:
        return
    rng = random.Random(len(crowd))
    mesh = records(len(crowd), node, f"{node_ip}:{PORT}")
    length = len(mesh) if how == "complete" else min(len(mesh), PART_RECORDS)
    senders = min(len(crowd), math.floor(2 * math.log2(len(crowd) + 1)))
    while True:
        for neighbour in rng.sample(crowd, senders):
            first = rng.randrange(len(mesh))
            part = [mesh[(first + step) % len(mesh)] for step in range(length)]
            envelope = Envelope(CHANNEL, name(neighbour.number), encode_update(part))
            await neighbour.say(bytes((Tag.GOSSIP,)) + encode_envelope(envelope))
            await anyio.sleep(GOSSIP_INTERVAL_S / senders)


async def main(node_ip: str, count: int, password: bytes, how: str) -> None:
    """Join, say so, and go on."""
    crowd = [Neighbour(number, node_ip, password) for number in range(1, count + 1)]
    async with anyio.create_task_group() as tasks:
        for neighbour in crowd:
            tasks.start_soon(neighbour.run)
            await anyio.sleep(0.06)  # the node takes no more than that from one host for long
        for neighbour in crowd:
            await neighbour.established.wait()
        sys.stderr.write("ready\n")
        sys.stderr.flush()
        await _gossip(crowd, node_ip, how)


if __name__ == "__main__":
    _, _ip, _count, _file, _how = sys.argv
    anyio.run(main, _ip, int(_count), Path(_file).read_bytes().strip(), _how)
