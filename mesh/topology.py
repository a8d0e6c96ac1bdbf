"""Topology updates: peer records and their connection lists as one gob stream.

For each peer a ``peerSummary`` struct, then a slice of ``connectionSummary``. Encoding joins the
cached bytes of each record, decoding frames all of them and reads a connection list only when it is
asked for: in a large mesh nearly every record that arrives is one we have, and its list, as long as
the mesh is large, need not be read to see that.

Source of truth: mesh specification 8.4, 8.6, 10.2, 10.3; vectors ``topology_gossip.json``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from base import gob
from base.errors import RemoteProtocolError
from base.names import NAME_LEN, PeerName
from mesh.features import SHORT_ID_BITS
from mesh.peer import ConnectionRecord, Connections, Peer

_T = TypeVar("_T", bool, int, bytes, str)

CHANNEL: Final = "topology"
ADDR_LEN_MAX: Final = 255
NICK_LEN_MAX: Final = 1024

_SUMMARY, _LIST, _CONNECTION = range(gob.FIRST_TYPE_ID, gob.FIRST_TYPE_ID + 3)
_SUMMARY_FIELDS: Final = (
    ("NameByte", gob.BYTES),
    ("NickName", gob.STRING),
    ("UID", gob.UINT),
    ("Version", gob.UINT),
    ("ShortID", gob.UINT),
    ("HasShortID", gob.BOOL),
)
_SUMMARY_TYPE: Final = gob.define_struct(_SUMMARY, "peerSummary", _SUMMARY_FIELDS)
_LIST_TYPES: Final = gob.define_slice(_LIST, _CONNECTION) + gob.define_struct(
    _CONNECTION,
    "connectionSummary",
    [
        ("NameByte", gob.BYTES),
        ("RemoteTCPAddr", gob.STRING),
        ("Outbound", gob.BOOL),
        ("Established", gob.BOOL),
    ],
)
_TRUE: Final = gob.encode_uint(1)


class Summary(NamedTuple):
    """The first part of a record; ``short_id`` None for a peer that has none."""

    name: PeerName
    nick: str
    uid: int
    version: int
    short_id: int | None


#: Summaries by their bytes: in a stable mesh the same ones arrive again and again.
_summaries: dict[bytes, Summary] = {}
_SUMMARIES_MAX: Final = 4096
_SUMMARY_LEN_MAX: Final = 512


@dataclass(slots=True, frozen=True)
class PeerRecord:
    """One peer of an update; :meth:`connections` reads its list."""

    summary: Summary
    stream: gob.Decoder
    raw_list: gob.RawValue

    @property
    def name(self) -> PeerName:
        """Whom it is about."""
        return self.summary.name

    def connections(self) -> Connections:
        """The connection list by remote name.

        Raises:
            RemoteProtocolError: it is not such a list.
        """
        listed = self.stream.resolve(self.raw_list)
        if not isinstance(listed, list):
            raise gob.GobError("gob: expected a list of connections")
        found: dict[PeerName, ConnectionRecord] = {}
        for item in listed:
            remote = _name(_field(item, "NameByte", b""))
            addr = _shared(_field(item, "RemoteTCPAddr", ""))
            if len(addr) > ADDR_LEN_MAX:
                raise RemoteProtocolError("topology: connection address too long")
            found[remote] = ConnectionRecord(
                remote,
                addr,
                _field(item, "Outbound", False),
                _field(item, "Established", False),
            )
        return found


def encode_update(peers: Iterable[Peer]) -> bytes:
    """Update about ``peers`` in their order; no peer gives no bytes."""
    parts: list[bytes] = []
    for peer in peers:
        summary, listed = _encode_record(peer)
        if not parts:
            parts += (_SUMMARY_TYPE, summary, _LIST_TYPES, listed)
        else:
            parts += (summary, listed)
    return b"".join(parts)


def _encode_record(peer: Peer) -> tuple[bytes, bytes]:
    key = (peer.nick, peer.uid, peer.version, peer.short_id)
    if peer.encoded_summary is None or peer.encoded_summary[0] != key:
        fields = gob.encode_fields(
            (
                gob.encode_bytes(peer.name.octets),
                gob.encode_string(peer.nick) if peer.nick else None,
                gob.encode_uint(peer.uid) if peer.uid else None,
                gob.encode_uint(peer.version) if peer.version else None,
                gob.encode_uint(peer.short_id) if peer.short_id else None,
                _TRUE if peer.short_id is not None else None,
            )
        )
        peer.encoded_summary = (key, gob.message(_SUMMARY, fields))
    if peer.encoded is None:
        items = b"".join(_encode_connection(record) for record in peer.connections.values())
        body = b"\0" + gob.encode_uint(len(peer.connections)) + items
        peer.encoded = gob.message(_LIST, body)
    return peer.encoded_summary[1], peer.encoded


def _encode_connection(record: ConnectionRecord) -> bytes:
    return gob.encode_fields(
        (
            gob.encode_bytes(record.remote.octets),
            gob.encode_string(record.addr) if record.addr else None,
            _TRUE if record.outbound else None,
            _TRUE if record.established else None,
        )
    )


def decode_update(update: bytes) -> list[PeerRecord]:
    """Records in the order of the update; the lists stay unread.

    An end of the bytes between a record and its list counts as the end of the update, as in the
    original, and drops that record.

    Raises:
        RemoteProtocolError: not such an update.
    """
    stream = gob.Decoder(update)
    records: list[PeerRecord] = []
    while True:
        try:
            summary = _read_summary(stream, stream.next_raw())
            records.append(PeerRecord(summary, stream, stream.next_raw()))
        except gob.GobEndError:
            return records


def _read_summary(stream: gob.Decoder, raw: gob.RawValue) -> Summary:
    body = stream.struct_body(raw, _SUMMARY_FIELDS)
    if body is not None and (known := _summaries.get(body)) is not None:
        return known
    fields = stream.resolve(raw)
    nick = _field(fields, "NickName", "")
    uid = _field(fields, "UID", 0)
    version = _field(fields, "Version", 0)
    short_id = _field(fields, "ShortID", 0)
    if len(nick) > NICK_LEN_MAX or min(uid, version, short_id) < 0 or short_id >> SHORT_ID_BITS:
        raise RemoteProtocolError("topology: peer record out of bounds")
    has_short_id = _field(fields, "HasShortID", False)
    name = _name(_field(fields, "NameByte", b""))
    summary = Summary(name, nick, uid, version, short_id if has_short_id else None)
    if body is not None and len(body) <= _SUMMARY_LEN_MAX:
        if len(_summaries) >= _SUMMARIES_MAX:
            _summaries.clear()
        _summaries[body] = summary
    return summary


def _field(fields: Any, name: str, zero: _T) -> _T:
    """A struct's field, its zero value when omitted; the kinds have to agree."""
    value = fields.get(name, zero) if isinstance(fields, dict) else None
    if type(value) is not type(zero):
        raise gob.GobError(f"gob: wrong type for field {name}")
    return value


@functools.lru_cache(maxsize=16384)
def _shared(text: str) -> str:
    """One object per text."""
    return text


@functools.lru_cache(maxsize=65536)
def _name(octets: bytes) -> PeerName:
    """One object per name: the lists of a large mesh repeat each as often as there are peers."""
    if len(octets) != NAME_LEN:
        raise RemoteProtocolError(f"topology: peer name of {len(octets)} bytes")
    return PeerName(octets)
