"""Messages between established neighbours: tags and the gossip envelope.

A message is one tag byte and a payload. Gossip payloads are one gob stream of top-level values:

    tag 4 (to neighbours), 6 (broadcast)   channel (string)  source (uint)  data ([]byte)
    tag 5 (unicast)                        channel  source  destination (uint)  data

The source of tag 4 is the neighbour that sent it, of tags 5 and 6 the peer it began at. Source of
truth: mesh specification 5 and 9.1, vectors ``gossip_envelope.json``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from base import gob
from base.errors import RemoteProtocolError
from base.names import PeerName

CHANNEL_LEN_MAX: Final = 255


class Tag(enum.IntEnum):
    """First byte of a message."""

    HEARTBEAT = 0
    CONNECTION_ESTABLISHED = 1
    FRAGMENTATION_RECEIVED = 2
    PMTU_VERIFIED = 3
    GOSSIP = 4
    GOSSIP_UNICAST = 5
    GOSSIP_BROADCAST = 6
    OVERLAY_CONTROL = 7


OVERLAY_TAGS: Final = frozenset(
    {
        Tag.CONNECTION_ESTABLISHED,
        Tag.FRAGMENTATION_RECEIVED,
        Tag.PMTU_VERIFIED,
        Tag.OVERLAY_CONTROL,
    }
)
GOSSIP_TAGS: Final = frozenset({Tag.GOSSIP, Tag.GOSSIP_UNICAST, Tag.GOSSIP_BROADCAST})


@dataclass(slots=True, frozen=True)
class Envelope:
    """One gossip message. ``destination`` is None unless it is a unicast."""

    channel: str
    source: PeerName
    data: bytes
    destination: PeerName | None = None


def encode_envelope(envelope: Envelope) -> bytes:
    """The payload after the tag byte."""
    parts = [gob.string_value(envelope.channel), gob.uint_value(int(envelope.source))]
    if envelope.destination is not None:
        parts.append(gob.uint_value(int(envelope.destination)))
    parts.append(gob.bytes_value(envelope.data))
    return b"".join(parts)


def decode_envelope(tag: int, payload: bytes) -> Envelope:
    """Payload of a gossip message → envelope.

    Raises:
        RemoteProtocolError: not an envelope of this tag's form.
    """
    stream = gob.Decoder(payload)
    channel = stream.next_string()
    if len(channel) > CHANNEL_LEN_MAX:
        raise RemoteProtocolError("gossip channel name too long")
    source = _name(stream.next_uint())
    destination = _name(stream.next_uint()) if tag == Tag.GOSSIP_UNICAST else None
    return Envelope(channel, source, stream.next_bytes(), destination)


def _name(number: int) -> PeerName:
    try:
        return PeerName.from_int(number)
    except ValueError as err:
        raise RemoteProtocolError(str(err)) from err
