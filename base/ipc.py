"""The control link: every message between router and control, and its framing.

Control listens on a Unix stream socket, the router dials. Each message is a 4-byte big-endian
length followed by one msgpack-encoded tagged struct. The router says :class:`RouterHello` first;
control answers with a :class:`Snapshot` and then sends :class:`Delta` messages whose ``seq`` grows
by one. A gap makes the router ask for a new snapshot with :class:`NeedSnapshot`. Events go up at
any time. Both ends treat undecodable bytes as :class:`~base.errors.RemoteProtocolError`: the link
is closed and dialled again, the router keeps forwarding on what it has.

This module does no I/O. Source of truth: the architecture's section "Processes on a node".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from base.errors import RemoteProtocolError

SCHEMA_VERSION: Final = 3
MESSAGE_LEN_MAX: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct("!I")

#: Peer names travel as their 6 bytes, MACs likewise.
NameBytes = bytes


class Peer(msgspec.Struct, frozen=True, tag=False):
    """A router that this node knows of, neighbour or not."""

    name: NameBytes
    nick: str


class Connection(msgspec.Struct, frozen=True, tag=False):
    """A link to a neighbour that datagrams may use.

    ``addr`` is dotted IPv4 and ``port`` the UDP port; "" and 0 when the neighbour dialled and its
    address is to be learned from its first heartbeat. ``uid`` is the connection UID that heartbeats
    carry, ``outbound`` whether we dialled. ``mtu`` is the overlay MTU (largest inner IP packet,
    bytes) that control wants at most, 0 for "let the router find out". ``stack_frag`` says that the
    underlay is known to carry IP fragments.

    ``conn`` is control's number of the mesh connection; another number is another connection, with
    a life of its own. 0 is a static link: in use at once, without heartbeats. ``established`` and
    ``acked`` tell a router that took over a connection in clear how far its life had got: the
    neighbour has acknowledged our heartbeat, and we have acknowledged one of its.

    ``cipher`` is a label of :class:`crypto.ciphers.Cipher` ("none", "secretbox", "aes-256-gcm") and
    ``key`` the 32 bytes for it, or none; the key is not shown by ``repr``.
    """

    peer: NameBytes
    addr: str
    port: int
    uid: int = 0
    outbound: bool = True
    mtu: int = 0
    stack_frag: bool = False
    conn: int = 0
    established: bool = False
    acked: bool = False
    cipher: str = "none"
    key: bytes = b""

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__[:-1])
        return f"{type(self).__name__}({', '.join(shown)})"


class UnicastRoute(msgspec.Struct, frozen=True, tag=False):
    """Frames for ``dst`` leave through the neighbour ``via``."""

    dst: NameBytes
    via: NameBytes


class BroadcastRoute(msgspec.Struct, frozen=True, tag=False):
    """Frames flooded by ``src`` go on to each neighbour in ``via``."""

    src: NameBytes
    via: tuple[NameBytes, ...]


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything the router needs; replaces all it had. ``seq`` is the number of this state.

    ``sealed`` says that neighbours to come may be encrypted, so that MTUs leave room for it.

    Neighbours ``cut`` had a connection that ended without a word: their routers may still be there.
    ``young``: so may all that are not named, since this control has only just begun.
    """

    seq: int
    name: NameBytes
    nick: str
    peers: tuple[Peer, ...] = ()
    connections: tuple[Connection, ...] = ()
    unicast: tuple[UnicastRoute, ...] = ()
    broadcast: tuple[BroadcastRoute, ...] = ()
    sealed: bool = False
    cut: tuple[NameBytes, ...] = ()
    young: bool = False


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """Change from state ``seq - 1`` to ``seq``, applied as one.

    Peers and connections are upserted by name; routes, when not None, replace the whole table.
    ``cut``: those of ``connections_gone`` that ended without a word.
    """

    seq: int
    peers: tuple[Peer, ...] = ()
    peers_gone: tuple[NameBytes, ...] = ()
    connections: tuple[Connection, ...] = ()
    connections_gone: tuple[NameBytes, ...] = ()
    cut: tuple[NameBytes, ...] = ()
    unicast: tuple[UnicastRoute, ...] | None = None
    broadcast: tuple[BroadcastRoute, ...] | None = None


class ReportRequest(msgspec.Struct, frozen=True, tag="report?"):
    """Asks the router for a :class:`RouterReport` with the same ``id``."""

    id: int
    macs_max: int = 10_000


class RouterHello(msgspec.Struct, frozen=True, tag="hello"):
    """First message of the router. ``instance`` is random per process start."""

    schema: int
    pid: int
    instance: int


class NeedSnapshot(msgspec.Struct, frozen=True, tag="snapshot?"):
    """The router saw ``got`` where ``have + 1`` was due."""

    have: int
    got: int


class PathMtuChanged(msgspec.Struct, frozen=True, tag="pmtu"):
    """The overlay MTU towards ``peer`` is now ``mtu`` bytes (underlay path MTU ``pmtu_bytes``)."""

    peer: NameBytes
    mtu: int
    pmtu_bytes: int


class OverlayMessage(msgspec.Struct, frozen=True, tag="overlay"):
    """A control message of the sleeve side of a mesh connection (spec: sleeve 6.1).

    Down: what the neighbour said over TCP. Up: what is to be said to it. ``kind`` is the sub-tag
    (1 heartbeat received, 2 fragments received, 3 path MTU verified), ``data`` what follows it.
    """

    peer: NameBytes
    conn: int
    kind: int
    data: bytes = b""


class OverlayEstablished(msgspec.Struct, frozen=True, tag="established"):
    """The neighbour has acknowledged our heartbeat: frames may take this connection."""

    peer: NameBytes
    conn: int


class OverlayFailed(msgspec.Struct, frozen=True, tag="failed"):
    """Datagrams don't get through on this connection: control closes it and shows ``reason``."""

    peer: NameBytes
    conn: int
    reason: str


class RemoteAddress(msgspec.Struct, frozen=True, tag="address"):
    """A heartbeat showed where the neighbour's datagrams come from, at first or after a change."""

    peer: NameBytes
    conn: int
    addr: str
    port: int


class BridgeRepaired(msgspec.Struct, frozen=True, tag="bridge"):
    """The router found the bridge or its port damaged and set it up again; ``what`` says how."""

    what: str
    repairs: int


class RouterReady(msgspec.Struct, frozen=True, tag="ready"):
    """Bridge, port and sockets are up and the first snapshot is in force."""

    bridge: str
    interface: str
    udp_port: int
    mtu: int


class ForwarderReport(msgspec.Struct, frozen=True, tag=False):
    """One neighbour's datagram side. Counts are since the connection's start.

    ``state`` is "static", "waiting" (its address is not known yet), "pending" (our heartbeats are
    not acknowledged yet), "established" or "failed". ``pmtu_bytes`` is the underlay's path MTU as
    far as it is known, 0 if not. ``rtt_us`` is the time from a probe datagram to its answer over
    TCP, median of the last few, 0 before the first. ``degraded`` says in words what is worse than
    it could be ("" if nothing): no heartbeats for a while, fragments lost, a narrower path than the
    kernel believes in.
    """

    peer: NameBytes
    nick: str
    addr: str
    mtu: int
    tx_frames: int
    tx_datagrams: int
    tx_bytes: int
    rx_frames: int
    rx_datagrams: int
    rx_bytes: int
    conn: int = 0
    state: str = "static"
    cipher: str = "none"
    pmtu_bytes: int = 0
    rtt_us: int = 0
    stack_frag: bool = False
    heard_ago_s: float = -1.0
    degraded: str = ""


class MacReport(msgspec.Struct, frozen=True, tag=False):
    """One FDB entry; ``age_s`` since it was last refreshed."""

    mac: bytes
    peer: NameBytes
    nick: str
    age_s: int


class RouterReport(msgspec.Struct, frozen=True, tag="report"):
    """Answer to :class:`ReportRequest`. ``counters`` holds every name of base.counters."""

    id: int
    uptime_s: float
    loops: str
    capture: str
    mtu: int
    seq: int
    bridge_repairs: int
    counters: dict[str, int]
    forwarders: tuple[ForwarderReport, ...] = ()
    macs: tuple[MacReport, ...] = ()
    macs_total: int = 0


ToRouter = Snapshot | Delta | ReportRequest | OverlayMessage
ToControl = (
    RouterHello
    | NeedSnapshot
    | PathMtuChanged
    | OverlayMessage
    | OverlayEstablished
    | OverlayFailed
    | RemoteAddress
    | BridgeRepaired
    | RouterReady
    | RouterReport
)

_encoder: Final = msgspec.msgpack.Encoder()
_to_router: Final = msgspec.msgpack.Decoder(ToRouter)
_to_control: Final = msgspec.msgpack.Decoder(ToControl)
#: What msgspec raises: its own errors, and for text that is not UTF-8 or nests too deeply others.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(message: ToRouter | ToControl) -> bytes:
    """Length header and body of one message."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


class MessageReader:
    """Cuts a byte stream into message bodies; one per link and direction.

    Feed it whatever arrived; it yields each complete body. State is only the unfinished tail.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes and yield complete bodies, oldest first.

        Raises:
            RemoteProtocolError: a length header above MESSAGE_LEN_MAX.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MESSAGE_LEN_MAX:
                raise RemoteProtocolError("control link: message longer than the limit")
            if len(self._buffer) < _HEADER.size + length:
                return
            body = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            yield body


def decode_for_router(body: bytes) -> ToRouter:
    """Body → message that control sent.

    Raises:
        RemoteProtocolError: not a message of this schema.
    """
    try:
        message: ToRouter = _to_router.decode(body)
    except _UNREADABLE as err:
        raise RemoteProtocolError(f"control link: {err}") from err
    return message


def decode_for_control(body: bytes) -> ToControl:
    """Body → message that the router sent.

    Raises:
        RemoteProtocolError: not a message of this schema.
    """
    try:
        message: ToControl = _to_control.decode(body)
    except _UNREADABLE as err:
        raise RemoteProtocolError(f"control link: {err}") from err
    return message
