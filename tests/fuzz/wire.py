"""Claims about each parser of bytes from other nodes: they parse or raise the remote error.

Whatever a target lets out (an exception of another kind, a failed assertion) is a finding. Streams
are read twice, in one piece and byte by byte, with the same result.
"""

from __future__ import annotations

import random
from typing import Any

from base import gob, ipc
from base.errors import CryptoError, DecryptError, RemoteProtocolError
from base.names import PeerName
from crypto.ciphers import Cipher, choose
from crypto.handshake import KeyPair, session_key
from crypto.session import SleeveSession
from crypto.tcp import TcpOpener, TcpSealer
from ipam import wire as ipam_wire
from ipam.address import Cidr
from ipam.allocator import Allocator
from ipam.options import AllocatorOptions, KnownPeer, Mode
from ipam.store import Stored
from mesh.features import Features
from mesh.framing import FrameReader
from mesh.intro import Intro, IntroDone
from mesh.peer import Peer
from mesh.peers import Peers
from mesh.protocol import Tag, decode_envelope, encode_envelope
from mesh.topology import decode_update
from tests.fuzz.source import Source, either_way, told

KEY = bytes(range(32))
PASSWORD = b"fuzzing, not guessing"
#: Fixed, so that both readings of a stream meet the same peer.
OURS = KeyPair.from_private(bytes(range(1, 33)))
THEIRS = KeyPair.from_private(bytes(range(2, 34)))
US = PeerName.from_int(0xCE0100000001)
FEATURES = Features(US, "host1", 1, 2, 3, False, ("sleeve",))


def nodes(value: Any) -> int:
    """How many values a decoded value is made of."""
    if isinstance(value, dict):
        return 1 + sum(nodes(key) + nodes(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 1 + sum(map(nodes, value))
    return 1


def gob_stream(data: bytes) -> None:
    """A stream ends or is refused; what comes out is no larger than what went in."""
    decoder = gob.Decoder(data)
    found = 0
    try:
        while True:
            before = decoder.position
            found += nodes(decoder.next())
            assert decoder.position > before
    except RemoteProtocolError:
        pass
    # names of fields come from the definition, and repeat with every struct
    assert found <= 2 * len(data) + 2


def records(update: bytes) -> list[tuple[Any, Any]]:
    """An update as plain values."""
    return [(record.summary, dict(record.connections())) for record in decode_update(update)]


def update(data: bytes) -> None:
    """A topology update is merged whole or not at all; what was merged can be told to others."""
    try:
        sent = records(data)
    except RemoteProtocolError:
        sent = None
    peers = Peers(Peer(US, "host1", 1), random.Random(1))
    before = (peers.names(), peers.generation, peers.ourself.version)
    try:
        merge = peers.apply_update(data)
    except RemoteProtocolError:
        assert (peers.names(), peers.generation, peers.ourself.version) == before
        return
    # the merge reads fewer lists than we did: those of news alone
    if sent is not None:
        assert merge.names == {summary.name for summary, _ in sent}
    peers.collect()
    names = sorted(peers.names())
    told_on = records(peers.encode(names))
    assert [summary.name for summary, _ in told_on] == names
    for summary, connections in told_on:
        peer = peers.get(summary.name)
        assert peer is not None
        assert (peer.uid, peer.version, peer.short_id) == summary[2:]
        assert dict(peer.connections) == connections


def envelope(data: bytes) -> None:
    """A gossip message, read and written again, says the same."""
    for tag in (Tag.GOSSIP, Tag.GOSSIP_UNICAST, Tag.GOSSIP_BROADCAST):
        try:
            found = decode_envelope(tag, data)
        except RemoteProtocolError:
            continue
        assert decode_envelope(tag, encode_envelope(found)) == found


def frames(data: bytes) -> None:
    """Bodies of a framed stream; no more is kept than one body may have."""
    limit = 300

    def read(pieces: list[bytes]) -> tuple[list[bytes], str]:
        reader = FrameReader(limit)
        bodies: list[bytes] = []
        try:
            for piece in pieces:
                reader.feed(piece)
                while (body := reader.next_body()) is not None:
                    bodies.append(body)
                assert reader.pending <= limit + 4
        except RemoteProtocolError as err:
            return bodies, told(err)
        return bodies, ""

    either_way(data, read)


def features(data: bytes) -> None:
    """A feature map in which any fields were replaced: what is accepted can be said again."""
    pairs = FEATURES.to_map()
    parts = iter(data.decode("utf-8", "replace").split("\0"))
    pairs |= dict(zip(parts, parts, strict=False))
    try:
        found = Features.from_map(pairs)
        choose(pairs.get("WeftCiphers"), pairs.get("Overlays"))
    except RemoteProtocolError:
        return
    assert Features.from_map(found.to_map()) == found
    assert gob.string_map(gob.Decoder(gob.string_map_stream(pairs)).next()) == pairs


def intro(data: bytes) -> None:
    """A whole introduction, with a password or without, their feature map sealed or as it comes."""
    source = Source(data)
    choice = source.byte()
    outbound, encrypted, sealed = bool(choice & 1), bool(choice & 2), bool(choice & 4)
    stream = source.rest()
    if encrypted and sealed:  # a peer that knows the password says what it likes
        sealer = TcpSealer(session_key(THEIRS.private, OURS.public, PASSWORD), not outbound)
        box = sealer.seal(stream)
        head = b"weave\x02\x02\x01" + THEIRS.public
        stream = head + len(box).to_bytes(4, "big") + box

    def read(pieces: list[bytes]) -> object:
        password = PASSWORD if encrypted else None
        ours = Intro(FEATURES, outbound=outbound, password=password, keys=OURS)
        done: IntroDone | None = None
        after: list[bytes] = []
        try:
            for piece in pieces:
                if done is None:
                    done = ours.receive(piece)
                else:
                    done.frames.feed(piece)
                while done is not None and (body := done.frames.next_body()) is not None:
                    after.append(done.opener.open(body))
        except (RemoteProtocolError, CryptoError) as err:
            return told(err), after, ours.bytes_to_send(), ours.state
        if done is not None:
            assert (done.key is not None) == encrypted
            return done.features, done.transcript, after, ours.bytes_to_send()
        return told(ours.end_of_stream()), ours.bytes_to_send(), ours.state

    either_way(stream, read)


def tcp(data: bytes) -> None:
    """Only what the peer sealed next opens, and only as it was."""
    opener = TcpOpener(KEY, outbound=True)
    try:
        opener.open(data)
    except DecryptError:
        assert opener.counter == 0
    else:
        raise AssertionError("a forged box opened")
    box = bytearray(TcpSealer(KEY, outbound=False).seal(data))
    assert opener.open(bytes(box)) == data
    bit = sum(data) % (8 * len(box))
    box[bit // 8] ^= 1 << bit % 8
    again = TcpOpener(KEY, outbound=True)
    try:
        again.open(bytes(box))
    except DecryptError:
        return
    raise AssertionError("an altered box opened")


def datagram(data: bytes) -> None:
    """A sealed datagram of either cipher opens once, and nothing else does."""
    for cipher in (Cipher.SECRETBOX, Cipher.GCM):
        sender = SleeveSession(KEY, True, cipher)
        receiver = SleeveSession(KEY, False, cipher)
        try:
            receiver.open(data)
        except CryptoError:
            pass
        else:
            raise AssertionError("a forged datagram opened")
        records_sent = data[:2000]
        sealed = sender.seal(US.octets, records_sent, df=bool(len(data) & 1))
        assert receiver.open(sealed) == (bool(len(data) & 1), records_sent)
        try:
            receiver.open(sealed)
        except CryptoError:
            continue
        raise AssertionError("a replayed datagram opened")


def control_link(data: bytes) -> None:
    """What either end of the control link reads; what it understood can be said again."""

    def read(pieces: list[bytes]) -> tuple[list[bytes], str]:
        reader = ipc.MessageReader()
        bodies: list[bytes] = []
        try:
            for piece in pieces:
                bodies.extend(reader.feed(piece))
        except RemoteProtocolError as err:
            return bodies, told(err)
        return bodies, ""

    either_way(data, read)
    for body in (data, *read([data])[0]):
        for decode in (ipc.decode_for_router, ipc.decode_for_control):
            try:
                message = decode(body)
            except RemoteProtocolError:
                continue
            again = ipc.encode(message)
            assert ipc.encode(decode(again[4:])) == again
            repr(message)


def ipam_state(data: bytes) -> None:
    """A state of the address allocation: what was understood can be said again."""
    try:
        state = ipam_wire.decode_state(data)
    except RemoteProtocolError:
        return
    assert ipam_wire.decode_state(ipam_wire.encode_state(state)) == state


def ipam_peer(data: bytes) -> None:
    """Unicasts and gossip at an allocator that has a ring: it keeps its addresses, and its order.

    Input: blocks, each a kind (unicast, broadcast, gossip, list of addresses outside the range) and
    a message.
    """
    name, other = PeerName.parse("ce:01::01"), PeerName.parse("ce:02::02")
    options = AllocatorOptions(
        name, "one", 1, Cidr.parse("10.32.0.0/12"), mode=Mode.SEED, seeds=(name, other)
    )
    core = Allocator(options, 0.0, random.Random(1))
    core.restore(Stored(), (), 0.0)
    core.set_topology([KnownPeer(other, "two", 2)], 0.0)
    core.allocate(1, "held", None, 0.0)
    core.claim(2, "held", Cidr.parse("10.9.0.1/24"), 0.0)
    source = Source(data)
    now = 0.0
    while source.left > 0:
        kind, message = source.byte() % 4, source.block()
        now += 1.0
        try:
            if kind == 0:
                core.on_unicast(other, message, now)
            elif kind == 1:
                core.on_broadcast(other, message, now)
            elif kind == 3:
                core.outside.on_broadcast(other, message, now)
            else:
                core.on_gossip(message, now)
        except RemoteProtocolError:
            pass
        core.timeout(now)
        if core.take_change() is not None:
            core.committed()
        core.take_events()
        state = core._context.state
        state.ring.check()
        assert state.ring.owned_joined(int(name)) == state.space.owned_ranges()
        assert dict(core.owned()).keys() == {"held"}
        core.status()
