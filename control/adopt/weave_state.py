"""What Weave Net wrote of itself: its name, its peers, the ring, and what it has handed out.

    version         two bytes, major and minor
    peername        gob uint
    directPeers     gob slice of string
    ring            gob Ring, as in gossip
    ownedAddresses  gob map: ident to {IsContainer bool, Cidrs []{Addr uint, PrefixLen int}}

Source of truth: ipam specification 9.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from base import gob
from base.names import PeerName
from control.bolt import BoltError, read_bucket
from ipam.address import ADDRESS_MAX
from ipam.store import Holding
from ipam.wire import RingState, decode_ring

BUCKET: Final = b"top"
_KEYS: Final = (b"version", b"peername", b"directPeers", b"ring", b"ownedAddresses")
_MAJOR: Final = 1
_IDENT_LEN_MAX: Final = 65_535


@dataclass(slots=True, frozen=True)
class WeaveState:
    """``ring`` None: the range was never divided; then nothing is held either.

    ``name`` None: the router never had one to store.
    """

    name: PeerName | None = None
    peers: tuple[str, ...] = ()
    ring: RingState | None = None
    holdings: tuple[Holding, ...] = ()

    @classmethod
    def decode(cls, file: bytes) -> Self:
        """From a whole file.

        Raises:
            BoltError: it is damaged, or of a version that nobody knows.
            GobError: one of its values is damaged.
        """
        values = read_bucket(file, BUCKET, _KEYS)
        if not values:  # it was only just made
            return cls()
        version = values.get(b"version", b"")
        if version[:1] != bytes((_MAJOR,)):
            raise BoltError(f"format {version.hex('.') or 'unknown'}")
        ring = _ring(values.get(b"ring"))
        name = _name(values.get(b"peername"))
        return cls(
            PeerName.from_int(ring.peer) if name is None and ring is not None else name,
            _texts(values.get(b"directPeers")),
            ring,
            () if ring is None else tuple(_holdings(values.get(b"ownedAddresses"))),
        )


def _name(value: bytes | None) -> PeerName | None:
    if value is None:
        return None
    number = gob.Decoder(value).next_uint()
    try:
        return PeerName.from_int(number) if number else None
    except ValueError as err:
        raise gob.GobError(f"gob: bad peer name: {err}") from err


def _ring(value: bytes | None) -> RingState | None:
    if value is None:
        return None
    ring = decode_ring(value)
    return ring if ring.entries else None


def _texts(value: bytes | None) -> tuple[str, ...]:
    found = [] if value is None else gob.Decoder(value).next()
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise gob.GobError("gob: expected a list of peers")
    return tuple(found)


def _holdings(value: bytes | None) -> Iterator[Holding]:
    found = {} if value is None else gob.Decoder(value).next()
    if not isinstance(found, dict):
        raise gob.GobError("gob: expected a map of addresses")
    seen: set[int] = set()
    for ident, owned in found.items():
        if not isinstance(ident, str) or len(ident.encode()) > _IDENT_LEN_MAX or "\0" in ident:
            raise gob.GobError("gob: bad ident")
        cidrs = owned.get("Cidrs", []) if isinstance(owned, dict) else None
        if not isinstance(cidrs, list):
            raise gob.GobError("gob: expected a list of addresses")
        for cidr in cidrs:
            holding = _holding(ident, cidr, is_container=bool(owned.get("IsContainer", False)))
            if holding.addr not in seen:  # an address has one holder
                seen.add(holding.addr)
                yield holding


def _holding(ident: str, cidr: Any, *, is_container: bool) -> Holding:
    addr, prefix_len = (
        (cidr.get("Addr", 0), cidr.get("PrefixLen", 0)) if isinstance(cidr, dict) else (None, None)
    )
    if type(addr) is not int or not 0 <= addr < ADDRESS_MAX:
        raise gob.GobError("gob: bad address")
    if type(prefix_len) is not int or not 0 <= prefix_len <= 32:
        raise gob.GobError("gob: bad prefix length")
    return Holding(addr, prefix_len, ident, is_container)
