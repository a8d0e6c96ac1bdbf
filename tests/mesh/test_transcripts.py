"""Recorded sessions of the real program, read by our cores to the last byte, and answered.

One side of each recorded connection is replayed against a core that plays the other side, under the
recorded name and keys: it has to understand every message, end with the topology that was recorded,
and say messages of the same kinds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from base import gob
from base.names import PeerName
from crypto.handshake import KeyPair
from mesh import events
from mesh.connection import ConnectionState
from mesh.core import MeshCore, MeshOptions
from mesh.features import Features
from mesh.framing import FrameReader, frame
from mesh.intro import Intro, IntroDone
from mesh.maker import DirectPeer
from mesh.protocol import GOSSIP_TAGS, OVERLAY_TAGS, Tag, decode_envelope, encode_envelope
from mesh.topology import CHANNEL, decode_update
from tests.golden import load

OTHER = {"outbound": "inbound", "inbound": "outbound"}


def _recorded() -> Iterator[Any]:
    for session in load("session_transcripts")["sessions"]:
        for index, connection in enumerate(session["tcp_connections"]):
            for side in OTHER:
                if connection["messages"]:
                    label = f"{session['file'].removesuffix('.pcap')}-{index}-{side}"
                    yield pytest.param(session, connection, side, id=label)


RECORDED = list(_recorded())


def _messages(connection: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return [message for message in connection["messages"] if message["from"] == side]


def _features(connection: dict[str, Any], side: str) -> Features:
    stream = bytes.fromhex(_messages(connection, side)[0]["plaintext"])
    return Features.from_map(gob.string_map(gob.Decoder(stream).next()))


def _keys(connection: dict[str, Any], side: str) -> KeyPair | None:
    private = connection.get(f"{side}_private_key")
    return KeyPair.from_private(bytes.fromhex(private)) if private else None


@pytest.mark.parametrize(("session", "connection", "side"), RECORDED)
def test_every_byte_is_read(session: dict[str, Any], connection: dict[str, Any], side: str) -> None:
    """``side`` is ours, the other's stream is read, whole and byte by byte."""
    password = session["password"].encode() if session["password"] else None
    stream = bytes.fromhex(connection[f"stream_from_{OTHER[side]}"])
    expected = [bytes.fromhex(m["plaintext"]) for m in _messages(connection, OTHER[side])]
    for step in (1, len(stream)):
        intro = Intro(
            _features(connection, side),
            outbound=side == "outbound",
            password=password,
            keys=_keys(connection, side),
        )
        done: IntroDone | None = None
        read: list[bytes] = []
        for position in range(0, len(stream), step):
            piece = stream[position : position + step]
            if done is None:
                done = intro.receive(piece)
            else:
                done.frames.feed(piece)
            if done is not None:
                read += map(done.opener.open, iter(done.frames.next_body, None))
        assert done is not None
        assert done.features == _features(connection, OTHER[side])
        assert (done.key.hex() if done.key else None) == connection.get("session_key")
        assert read == expected[1:]
        assert done.frames.pending == 0


@pytest.mark.parametrize(("session", "connection", "side"), RECORDED)
def test_every_message_is_understood(
    session: dict[str, Any], connection: dict[str, Any], side: str
) -> None:
    for message in _messages(connection, side)[1:]:
        plain = bytes.fromhex(message["plaintext"])
        tag, payload = plain[0], plain[1:]
        assert tag in GOSSIP_TAGS | OVERLAY_TAGS
        if tag in GOSSIP_TAGS:
            envelope = decode_envelope(tag, payload)
            assert encode_envelope(envelope) == payload
            if envelope.channel == CHANNEL:
                for record in decode_update(envelope.data):
                    assert record.connections() is not None


def _replay(session: dict[str, Any], connection: dict[str, Any], side: str) -> tuple[MeshCore, Any]:
    """A core in the place of ``side``; what it sent, as (kinds, messages)."""
    mine, theirs = _features(connection, side), _features(connection, OTHER[side])
    password = session["password"].encode() if session["password"] else None
    now = 100.0
    core = MeshCore(
        MeshOptions(mine.name, mine.nick, mine.uid, password=password, discovery=False),
        now,
        random.Random(1),
    )
    if password is None:
        ident = core.accepted("10.96.0.9:40000", now)
        feed = bytes.fromhex(connection[f"stream_from_{OTHER[side]}"])
        other = None
    else:
        # our key pair is not the recorded one, so the recorded messages are sealed anew
        ident = core.accepted("10.96.0.9:40000", now)
        other = Intro(theirs, outbound=True, password=password)
        core.receive(ident, other.bytes_to_send(), now)
        done = None
        while done is None:
            done = other.receive(core.bytes_to_send(ident, now))
            core.receive(ident, other.bytes_to_send(), now)
        plain = [bytes.fromhex(m["plaintext"]) for m in _messages(connection, OTHER[side])[1:]]
        feed = b"".join(frame(done.sealer.seal(message)) for message in plain)
        feed_reader = done
    sent: list[bytes] = []
    for position in range(0, max(1, len(feed)), 997):
        core.receive(ident, feed[position : position + 997], now)
        for event in core.take_events():
            assert not isinstance(event, events.Close), event
            if isinstance(event, events.ConnectionAdded):
                core.send_overlay_control(ident, "sleeve", 1, b"", now)
            elif isinstance(event, events.OverlayControl) and event.kind == 1:
                core.overlay_established(ident, now)
        sent.append(core.bytes_to_send(ident, now))
    for _ in range(40):
        now += 1.0
        core.timeout(now)
        sent.append(core.bytes_to_send(ident, now))
    reader = FrameReader()
    data = b"".join(sent)
    if password is None:
        reader.feed(data[8:])
        messages = list(iter(reader.next_body, None))[1:]
    else:
        feed_reader.frames.feed(data)
        messages = [
            feed_reader.opener.open(box) for box in iter(feed_reader.frames.next_body, None)
        ]
    return core, messages


@pytest.mark.parametrize(("session", "connection", "side"), RECORDED)
def test_a_core_takes_the_place_of_one_side(
    session: dict[str, Any], connection: dict[str, Any], side: str
) -> None:
    core, messages = _replay(session, connection, side)
    (mine,) = core.connections()
    recorded = Counter(message["kind"] for message in _messages(connection, OTHER[side]))
    if recorded["overlay control"]:
        assert mine.state is ConnectionState.ESTABLISHED
    # what the recorded side said of itself last is what we hold of it
    peer = core.peers.get(_features(connection, OTHER[side]).name)
    assert peer is not None
    latest = 0
    for message in _messages(connection, OTHER[side])[1:]:
        plain = bytes.fromhex(message["plaintext"])
        if plain[0] == Tag.GOSSIP:
            envelope = decode_envelope(plain[0], plain[1:])
            if envelope.channel == CHANNEL:
                versions = [
                    r.summary.version for r in decode_update(envelope.data) if r.name == peer.name
                ]
                latest = max([latest, *versions])
    assert peer.version == latest
    assert latest > 0 or not recorded["gossip"]
    kinds = {message[0] for message in messages}
    assert kinds <= {Tag.HEARTBEAT, Tag.GOSSIP, Tag.OVERLAY_CONTROL}
    assert {Tag.HEARTBEAT, Tag.GOSSIP, Tag.OVERLAY_CONTROL} <= kinds
    assert messages[0][0] == Tag.OVERLAY_CONTROL or messages[0][0] == Tag.GOSSIP
    assert b"\7\0\1" in messages
    told: dict[PeerName, int] = {}
    for message in messages:
        if message[0] == Tag.GOSSIP:
            envelope = decode_envelope(message[0], message[1:])
            assert envelope.source == core.options.name
            told |= {record.name: record.summary.version for record in decode_update(envelope.data)}
    assert told[core.options.name] == core.peers.ourself.version


def test_there_are_connections_to_read() -> None:
    assert len(RECORDED) == 24


def test_a_core_in_the_middle_of_a_line_relays_what_both_ends_say() -> None:
    """Host 2 of the recorded line is ours, without IPAM and DNS; the others say what they said."""
    session = next(s for s in load("session_transcripts")["sessions"] if "line" in s["file"])
    mine = _features(session["tcp_connections"][0], "outbound")
    now = 100.0
    core = MeshCore(
        MeshOptions(mine.name, mine.nick, mine.uid, discovery=False), now, random.Random(1)
    )
    ends = [connection["inbound_address"] for connection in session["tcp_connections"]]
    core.connect([DirectPeer(addr, *_host_port(addr)) for addr in ends], now)
    core.timeout(now)
    idents = {
        event.addr: event.conn for event in core.take_events() if isinstance(event, events.Dial)
    }
    said: list[tuple[float, int, bytes]] = []
    readers: dict[int, FrameReader] = {}
    for connection in session["tcp_connections"]:
        ident = idents[connection["inbound_address"]]
        core.dialled(ident, connection["inbound_address"], now)
        core.receive(ident, b"weave\1\2\0", now)
        readers[ident] = FrameReader()
        readers[ident].feed(core.bytes_to_send(ident, now)[8:])
        assert readers[ident].next_body() is not None  # our features
        said.extend(
            (recorded["at"], ident, bytes.fromhex(recorded["plaintext"]))
            for recorded in _messages(connection, "inbound")
        )
    said.sort()
    start = said[0][0]
    for at, ident, message in said:
        while (deadline := core.next_deadline()) is not None and deadline <= 100.0 + at - start:
            core.timeout(deadline)
        now = 100.0 + at - start
        core.receive(ident, frame(message), now)
        for event in core.take_events():
            assert not isinstance(event, events.Close), event
            if isinstance(event, events.OverlayControl) and event.kind == 1:
                core.overlay_established(event.conn, now)
        for other, reader in readers.items():
            reader.feed(core.bytes_to_send(other, now))
    while now < 104.0 + said[-1][0] - start:
        now += 0.05
        core.timeout(now)
        for other, reader in readers.items():
            reader.feed(core.bytes_to_send(other, now))
    heard = {ident: list(iter(reader.next_body, None)) for ident, reader in readers.items()}
    first, third = (idents[addr] for addr in ends)
    for sender, receiver in ((first, third), (third, first)):
        broadcasts = [m for _, ident, m in said if ident == sender and m[:1] == b"\6"]
        assert broadcasts
        assert [m for m in heard[receiver] if m[:1] == b"\6"] == broadcasts
        unicasts = [m for _, ident, m in said if ident == sender and m[:1] == b"\5"]
        onwards = [
            m for m in unicasts if decode_envelope(m[0], m[1:]).destination != core.options.name
        ]
        assert [m for m in heard[receiver] if m[:1] == b"\5"] == onwards
    # gossip of channels that the core does not have goes on under its own name, once
    for channel in ("IPallocation", "nameserver"):
        told = [
            decode_envelope(m[0], m[1:]).data
            for _, ident, m in said
            if ident == first and m[:1] == b"\4"
            if decode_envelope(m[0], m[1:]).channel == channel
        ]
        relayed = [
            decode_envelope(m[0], m[1:])
            for m in heard[third]
            if m[:1] == b"\4" and decode_envelope(m[0], m[1:]).channel == channel
        ]
        assert {envelope.source for envelope in relayed} <= {core.options.name}
        assert {envelope.data for envelope in relayed} <= set(told)
    assert len(core.routes.frame_routes()) == 3
    assert len(core.peers) == 3


def _host_port(addr: str) -> tuple[str, int]:
    host, _, port = addr.rpartition(":")
    return host, int(port)
