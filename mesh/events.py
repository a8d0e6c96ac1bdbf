"""What the mesh core tells its shell and whoever runs the data path.

Connections are named by the number that the core gave them. Source of truth: mesh specification 6
and 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from base.names import PeerName


@dataclass(slots=True, frozen=True)
class Dial:
    """Open a TCP connection to ``addr`` (``IP:port``) and report it under ``conn``."""

    conn: int
    addr: str


@dataclass(slots=True, frozen=True)
class Close:
    """Close this TCP connection; the core has forgotten it. ``reason`` is for the log.

    ``last_words`` is what is left of our introduction, to be sent first if the socket takes it at
    once: a peer that we refuse learns from it who we are, and so why.
    """

    conn: int
    reason: str
    last_words: bytes = field(default=b"", repr=False)


@dataclass(slots=True, frozen=True)
class ConnectionAdded:
    """A neighbour is linked to us: its overlay side may start.

    ``key`` is the session key for datagrams, None when they go in clear: no password, or both ends
    trust the path; ``transcript`` is the digest that other ciphers' keys are derived with, empty
    without a password. ``overlays`` are those in common, in order; ``compatible`` that control
    messages are of the older form. ``features`` are the neighbour's keys that are not Weave's.
    """

    conn: int
    peer: PeerName
    nick: str
    addr: str
    outbound: bool
    uid: int
    key: bytes | None = field(repr=False)
    encrypted: bool = False
    transcript: bytes = b""
    overlays: tuple[str, ...] = ()
    compatible: bool = False
    features: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, frozen=True)
class ConnectionEstablished:
    """The neighbour has acknowledged our datagrams; frames may take this link."""

    conn: int
    peer: PeerName


@dataclass(slots=True, frozen=True)
class ConnectionGone:
    """A connection that had been added is no more. ``cut``: the other end is gone, and did not say
    why; its router may still be there.
    """

    conn: int
    peer: PeerName
    reason: str
    cut: bool = False


@dataclass(slots=True, frozen=True)
class OverlayControl:
    """A control message for the overlay side of a connection: ``kind`` is its sub-tag."""

    conn: int
    peer: PeerName
    overlay: str
    kind: int
    data: bytes


@dataclass(slots=True, frozen=True)
class RoutesChanged:
    """Peers, connections or their states have changed: ask the route table anew."""


@dataclass(slots=True, frozen=True)
class PeersGone:
    """Peers that nothing leads to any more were forgotten."""

    names: tuple[PeerName, ...]


@dataclass(slots=True, frozen=True)
class NameCollision:
    """Another router, at ``addr``, bears our name; "" when only gossip told of it."""

    peer: PeerName
    nick: str
    addr: str


@dataclass(slots=True, frozen=True)
class NamesakesSeen:
    """Two other routers, at these addresses, bear the same name."""

    peer: PeerName
    addrs: tuple[str, str]


@dataclass(slots=True, frozen=True)
class StrangerRefused:
    """Who connected from ``addr`` has another password than we, or one of us has none."""

    addr: str


Event = (
    Dial
    | Close
    | ConnectionAdded
    | ConnectionEstablished
    | ConnectionGone
    | OverlayControl
    | RoutesChanged
    | PeersGone
    | NameCollision
    | NamesakesSeen
    | StrangerRefused
)
