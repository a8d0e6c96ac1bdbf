"""A whole mesh core under a script of what up to four neighbours and the time do to it.

Input: options, then operations (:class:`Op`) with their arguments. Neighbours either introduce
themselves properly, with the password, and then say what the script wants, or send raw bytes from
the start. The script runs twice, each delivery in one piece and byte by byte: the same events have
to come out and the same topology has to stand at the end. What the core sends is read as a
neighbour would.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from base.names import PeerName
from mesh import events
from mesh.core import MeshCore, MeshOptions
from mesh.features import Features
from mesh.framing import frame
from mesh.intro import Intro, IntroDone
from mesh.maker import DirectPeer
from mesh.protocol import GOSSIP_TAGS, Envelope, Tag, decode_envelope, encode_envelope
from mesh.topology import CHANNEL, decode_update
from tests.fuzz.source import Source, arrivals

PASSWORD: Final = b"fuzzing, not guessing"
OPS_MAX: Final = 60
CONNECTIONS_MAX: Final = 4
CHANNELS: Final = (CHANNEL, "IPAMallocation", "nameserver")
NAMES: Final = tuple(PeerName.from_int(0xCE0000000000 + number) for number in range(6))


class Op(IntEnum):
    """What happens next; the arguments follow in the input."""

    ACCEPT = 0  #: somebody connects and introduces itself: name, UID, kind
    STRANGER = 1  #: somebody connects and says nothing yet
    DIAL = 2  #: the user wants a peer, it answers
    GOSSIP = 3  #: connection, tag, channel, source; a block of data
    MESSAGE = 4  #: connection; a block that starts with its tag
    RAW = 5  #: connection; a block of bytes out of frame
    TIME = 6  #: in half seconds
    ESTABLISH = 7  #: connection
    END = 8  #: connection


@dataclass(eq=False)
class Neighbour:
    """The other end of one connection."""

    intro: Intro | None
    done: IntroDone | None = None
    opened: int = 0


@dataclass
class Run:
    """The core under one script. ``single``: deliver byte by byte."""

    single: bool
    core: MeshCore
    now: float = 1000.0
    neighbours: dict[int, Neighbour] = field(default_factory=dict)
    log: list[events.Event] = field(default_factory=list)
    sent: int = 0

    def deliver(self, ident: int, data: bytes) -> None:
        """Bytes of one neighbour."""
        whole, single = arrivals(data)
        for piece in single if self.single else whole:
            self.core.receive(ident, piece, self.now)
        self.settle()

    def settle(self) -> None:
        """Carry out what the core wants; neighbours that introduce themselves answer."""
        busy = True
        while busy:
            busy = False
            for event in self.core.take_events():
                busy = True
                self.act(event)
            for ident in list(self.core.ready()):
                busy = True
                self.hear(ident, self.core.bytes_to_send(ident, self.now))

    def act(self, event: events.Event) -> None:
        """Note an event, less what differs in each run; nobody answers a dial of the core's own."""
        if isinstance(event, events.ConnectionAdded):
            event = replace(event, key=None, transcript=b"")
        elif isinstance(event, events.Close):
            # an introduction with a password begins with a key that is new in each run
            event = replace(event, last_words=bytes(len(event.last_words)))
        self.log.append(event)
        if isinstance(event, events.Close):
            self.neighbours.pop(event.conn, None)
        elif isinstance(event, events.Dial):
            self.core.dial_failed(event.conn, "connection refused", self.now)

    def hear(self, ident: int, data: bytes) -> None:
        """Read what the core says as a peer has to, to the last byte."""
        self.sent += len(data)
        neighbour = self.neighbours.get(ident)
        if neighbour is None or neighbour.intro is None:
            return
        if neighbour.done is None:
            neighbour.done = neighbour.intro.receive(data)
            if answer := neighbour.intro.bytes_to_send():
                self.deliver(ident, answer)
        else:
            neighbour.done.frames.feed(data)
        if (done := neighbour.done) is None:
            return
        while (body := done.frames.next_body()) is not None:
            message = done.opener.open(body)
            if message[0] in GOSSIP_TAGS:
                told = decode_envelope(message[0], message[1:])
                # a unicast for somebody else is relayed unread
                if told.channel == CHANNEL and told.destination is None:
                    for record in decode_update(told.data):
                        record.connections()
        assert done.frames.pending == 0

    def say(self, ident: int, message: bytes) -> None:
        """A message of an introduced neighbour, or bytes of any other."""
        neighbour = self.neighbours.get(ident)
        if neighbour is not None and neighbour.done is not None:
            self.deliver(ident, frame(neighbour.done.sealer.seal(message)))

    def pass_time(self, until: float) -> None:
        """All deadlines up to then."""
        while (deadline := self.core.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.core.timeout(self.now)
            self.settle()
        self.now = until


def _features(source: Source) -> Features:
    """Of a neighbour; the name may be ours, the UID too, overlays may be missing."""
    name = NAMES[source.byte() % len(NAMES)]
    kind = source.byte()
    overlays = (("sleeve",), ("fastdp", "sleeve"), None, ("fastdp",))[kind & 3]
    return Features(
        name, "host", 1 + (kind >> 2 & 3), source.byte(), kind, bool(kind & 64), overlays
    )


def _start(run: Run, ident: int, intro: Intro | None) -> None:
    run.neighbours[ident] = Neighbour(intro)
    run.settle()
    if intro is not None:
        run.deliver(ident, intro.bytes_to_send())


def _operate(run: Run, op: Op, source: Source, password: bytes | None) -> None:
    if op in (Op.ACCEPT, Op.STRANGER) and len(run.neighbours) < CONNECTIONS_MAX:
        ident = run.core.accepted(f"10.0.{len(run.log) % 250}.{source.byte() & 3}:40000", run.now)
        intro = None
        if op is Op.ACCEPT:
            intro = Intro(_features(source), outbound=True, password=password)
        _start(run, ident, intro)
    elif op is Op.DIAL and len(run.neighbours) < CONNECTIONS_MAX:
        addr = f"10.1.0.{source.byte() & 7}"
        run.core.connect([DirectPeer(addr, addr)], run.now)
        run.core.timeout(run.now)
        features = _features(source)
        for event in run.core.take_events():
            if isinstance(event, events.Dial) and event.addr.startswith(addr):
                run.log.append(event)
                run.core.dialled(event.conn, event.addr, run.now)
                _start(run, event.conn, Intro(features, outbound=False, password=password))
            else:
                run.act(event)
    elif op is Op.TIME:
        run.pass_time(run.now + source.byte() / 2)
    elif run.neighbours:
        idents = sorted(run.neighbours)
        _talk(run, op, idents[source.byte() % len(idents)], source)


def _talk(run: Run, op: Op, ident: int, source: Source) -> None:
    if op is Op.GOSSIP:
        tag = Tag.GOSSIP + source.byte() % 3
        channel = CHANNELS[source.byte() % len(CHANNELS)]
        names = [NAMES[source.byte() % len(NAMES)] for _ in range(2)]
        to = names[1] if tag == Tag.GOSSIP_UNICAST else None
        envelope = Envelope(channel, names[0], source.block(), to)
        run.say(ident, bytes((tag,)) + encode_envelope(envelope))
    elif op is Op.MESSAGE:
        run.say(ident, source.block())
    elif op is Op.RAW:
        run.deliver(ident, source.block())
    elif op is Op.ESTABLISH:
        run.core.overlay_established(ident, run.now)
        run.settle()
    elif op is Op.END:
        run.core.closed(ident, run.now)
        run.settle()


def play(data: bytes, *, single: bool) -> object:
    """Run the script: everything that can be compared."""
    source = Source(data)
    choice = source.byte()
    password = PASSWORD if choice & 1 else None
    subnets = (ipaddress.IPv4Network("10.0.0.0/8"),) if choice & 2 else ()
    options = MeshOptions(
        NAMES[0],
        "ours",
        1,
        password=password,
        conn_limit=2 if choice & 4 else 200,
        discovery=not choice & 8,
        trusted_subnets=subnets,
    )
    run = Run(single, MeshCore(options, 1000.0, random.Random(1)))
    for _ in range(OPS_MAX):
        if not source.left:
            break
        _operate(run, Op(source.byte() % len(Op)), source, password)
    run.pass_time(run.now + 100)
    peers = run.core.peers
    for peer in peers:
        assert peer.name in peers.reachable() or peer.references
    run.core.routes.frame_routes()
    run.core.routes.frame_broadcasts()
    topology = sorted(
        (
            str(peer.name),
            peer.uid,
            peer.version,
            peer.short_id or -1,
            sorted(map(str, peer.connections)),
        )
        for peer in peers
    )
    return run.log, topology, run.sent, run.core.messages_ignored


def core(data: bytes) -> None:
    """The same happens, however the bytes arrive."""
    whole, single = play(data, single=False), play(data, single=True)
    assert whole == single, f"in one piece {whole!r}, byte by byte {single!r}"
