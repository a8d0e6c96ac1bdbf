"""Gossip: what channels exchange, what waits to be sent, and channels that we do not know.

A channel's state travels as :class:`GossipData`: it can be merged with later data of its kind while
it waits, and is turned into bytes only when a connection is ready for it, so a slow link carries
less, not more. Whoever owns a channel is a :class:`Gossiper`. For any other channel a
:class:`Surrogate` passes messages on unread, so that IPAM or DNS of other routers work across us.

Source of truth: mesh specification 9, vectors ``fnv_and_unknown_channels.json``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from base.names import PeerName
from mesh.protocol import Envelope, Tag, encode_envelope

GOSSIP_INTERVAL_S: Final = 30.0
DIRECT_MESSAGES_MAX: Final = 4096
DIRECT_BYTES_MAX: Final = 32 * 1024 * 1024
BROADCAST_SLOTS_MAX: Final = 4096
_SURROGATE_MESSAGES_MAX: Final = 512
_SURROGATE_BYTES_MAX: Final = 16 * 1024 * 1024
_HASHED_LEN: Final = 4096

_FNV_BASIS: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_FNV_MASK: Final = (1 << 64) - 1


def fnv1a_64(data: bytes) -> int:
    """The 64-bit FNV-1a hash."""
    value = _FNV_BASIS
    for octet in data:
        value = (value ^ octet) * _FNV_PRIME & _FNV_MASK
    return value


class GossipData(Protocol):
    """Part of a channel's state on its way out."""

    def encode(self) -> list[bytes]:
        """The payloads to send, made when it is time to send them; may be none."""
        ...

    def merge(self, other: GossipData, /) -> GossipData:
        """This and ``other``, later data of the same channel, as one."""
        ...


class Gossiper(Protocol):
    """The owner of a channel. A raised RemoteProtocolError closes the sender's connection."""

    def on_unicast(self, source: PeerName, data: bytes, now: float, /) -> None:
        """A message for us alone."""
        ...

    def on_broadcast(self, source: PeerName, data: bytes, now: float, /) -> GossipData | None:
        """A broadcast of ``source``: what to pass on along its route."""
        ...

    def on_gossip(self, data: bytes, now: float, /) -> GossipData | None:
        """A neighbour's state: the part that was news, to pass on, or None."""
        ...

    def complete(self) -> GossipData | None:
        """All of our state, None when there is none."""
        ...


@dataclass(slots=True, frozen=True)
class Blobs:
    """Payloads that nobody here can merge: they are sent one by one, the oldest lost first."""

    payloads: tuple[bytes, ...]

    def encode(self) -> list[bytes]:
        """The payloads."""
        return list(self.payloads)

    def merge(self, other: GossipData) -> GossipData:
        """Both, in order."""
        return Blobs((*self.payloads, *other.encode())[-_SURROGATE_MESSAGES_MAX:])


class Surrogate:
    """Stands in for a channel that this router does not have.

    Broadcasts always pass, neighbours' gossip only when no identical payload is remembered. The
    memory loses what is older than a gossip interval when something new arrives, and its oldest
    parts when it grows too large.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], list[tuple[float, bytes]]] = {}
        self._bytes = 0
        self._order: deque[tuple[float, tuple[int, int], bytes]] = deque()

    @property
    def remembered(self) -> int:
        """Payloads in memory."""
        return len(self._order)

    def on_unicast(self, _source: PeerName, _data: bytes, _now: float) -> None:
        """Nobody is here to read it."""

    def on_broadcast(self, _source: PeerName, data: bytes, _now: float) -> GossipData | None:
        """Pass it on as it is."""
        return Blobs((data,))

    def on_gossip(self, data: bytes, now: float) -> GossipData | None:
        """Pass it on unless it was seen lately."""
        # the hash only finds candidates, so its cost may be bounded; equality decides
        key = (len(data), fnv1a_64(data[:_HASHED_LEN]))
        if any(known == data for _, known in self._seen.get(key, ())):
            return None
        while self._order and (
            self._order[0][0] <= now - GOSSIP_INTERVAL_S
            or self._bytes + len(data) > _SURROGATE_BYTES_MAX
            or len(self._order) >= _SURROGATE_MESSAGES_MAX
        ):
            self._forget_oldest()
        self._seen.setdefault(key, []).append((now, data))
        self._order.append((now, key, data))
        self._bytes += len(data)
        return Blobs((data,))

    def complete(self) -> GossipData | None:
        """Never any state."""
        return None

    def _forget_oldest(self) -> None:
        when, key, data = self._order.popleft()
        self._seen[key].remove((when, data))
        if not self._seen[key]:
            del self._seen[key]
        self._bytes -= len(data)


class SendQueue:
    """What one connection has yet to send.

    Messages that are complete go first and in order. Then gossip: per channel one slot for
    neighbours' gossip and one for each source of broadcasts, into which later data is merged.
    """

    def __init__(self, ourself: PeerName) -> None:
        self._ourself = ourself
        self._direct: deque[bytes] = deque()
        self._direct_bytes = 0
        self._gossip: dict[str, GossipData] = {}
        self._broadcast: dict[tuple[str, PeerName], GossipData] = {}

    def __bool__(self) -> bool:
        return bool(self._direct or self._gossip or self._broadcast)

    def add_message(self, tag: int, payload: bytes = b"") -> bool:
        """Queue a complete message; False when the queue is full: the link is too slow."""
        if len(self._direct) >= DIRECT_MESSAGES_MAX or self._direct_bytes > DIRECT_BYTES_MAX:
            return False
        self._direct.append(bytes((tag,)) + payload)
        self._direct_bytes += 1 + len(payload)
        return True

    def add_gossip(self, channel: str, data: GossipData) -> None:
        """Queue neighbours' gossip, merged with what waits."""
        waiting = self._gossip.get(channel)
        self._gossip[channel] = data if waiting is None else waiting.merge(data)

    def add_broadcast(self, channel: str, source: PeerName, data: GossipData) -> None:
        """Queue a broadcast of ``source``; beyond the limit of sources it is dropped."""
        key = (channel, source)
        waiting = self._broadcast.get(key)
        if waiting is not None:
            self._broadcast[key] = waiting.merge(data)
        elif len(self._broadcast) < BROADCAST_SLOTS_MAX:
            self._broadcast[key] = data

    def next_messages(self) -> Iterator[bytes]:
        """Everything that waits, encoded now; the queue is empty afterwards."""
        while self._direct:
            message = self._direct.popleft()
            self._direct_bytes -= len(message)
            yield message
        while self._gossip:
            channel = next(iter(self._gossip))
            for payload in self._gossip.pop(channel).encode():
                yield _message(Tag.GOSSIP, Envelope(channel, self._ourself, payload))
        while self._broadcast:
            channel, source = key = next(iter(self._broadcast))
            for payload in self._broadcast.pop(key).encode():
                yield _message(Tag.GOSSIP_BROADCAST, Envelope(channel, source, payload))


def _message(tag: Tag, envelope: Envelope) -> bytes:
    return bytes((tag,)) + encode_envelope(envelope)
