"""What two peers tell each other first: the feature map, its parsing and its checks.

A map of strings whose unknown keys are ignored. Checked in this order: the required keys, the
flavour of names, the name, short ID, trust, UID, connection ID. Error texts are the original's.
Source of truth: mesh specification 3.5 and 3.6, vectors ``handshake.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from base.errors import RemoteProtocolError
from base.names import PeerName

FLAVOUR: Final = "mac"
SHORT_ID_BITS: Final = 12
REQUIRED: Final = ("PeerNameFlavour", "Name", "NickName", "UID", "ConnID")

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_DECIMAL: Final = re.compile(r"[0-9]{1,32}")


@dataclass(slots=True, frozen=True)
class Features:
    """One end's introduction.

    ``short_id`` is None when it has none. ``overlays`` are data-plane overlays in order of
    preference, None when the peer did not say (it then speaks the older control messages).
    ``extra`` holds the keys that are not the original's.
    """

    name: PeerName
    nick: str
    uid: int
    conn_id: int
    short_id: int | None = None
    trusted: bool = False
    overlays: tuple[str, ...] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_map(self) -> dict[str, str]:
        """The map that goes on the wire."""
        pairs = {
            "ConnID": str(self.conn_id),
            "Name": str(self.name),
            "NickName": self.nick,
            "PeerNameFlavour": FLAVOUR,
            "Trusted": "true" if self.trusted else "false",
            "UID": str(self.uid),
        }
        if self.overlays is not None:
            pairs["Overlays"] = " ".join(self.overlays)
        if self.short_id is not None:
            pairs["ShortID"] = str(self.short_id)
        return pairs | dict(self.extra)

    @classmethod
    def from_map(cls, pairs: Mapping[str, str]) -> Features:
        """Check and parse a received map.

        Raises:
            RemoteProtocolError: names the first thing that is wrong.
        """
        for key in REQUIRED:
            if key not in pairs:
                raise RemoteProtocolError(f"Field {key} is missing")
        if pairs["PeerNameFlavour"] != FLAVOUR:
            raise RemoteProtocolError(
                f"Peer name flavour mismatch (ours: '{FLAVOUR}', "
                f"theirs: '{pairs['PeerNameFlavour']}')"
            )
        try:
            name = PeerName.parse(pairs["Name"])
        except ValueError as err:
            raise RemoteProtocolError(str(err)) from err
        short_id = _unsigned(pairs["ShortID"], SHORT_ID_BITS) if "ShortID" in pairs else None
        trusted = _boolean(pairs.get("Trusted", "false"))
        uid = _unsigned(pairs["UID"], 64)
        conn_id = _unsigned(pairs["ConnID"], 64)
        overlays = tuple(pairs["Overlays"].split()) if "Overlays" in pairs else None
        known = {*REQUIRED, "ShortID", "Trusted", "Overlays", "PublicKey"}
        extra = {key: value for key, value in pairs.items() if key not in known}
        return cls(name, pairs["NickName"], uid, conn_id, short_id, trusted, overlays, extra)


def _unsigned(text: str, bits: int) -> int:
    if not _DECIMAL.fullmatch(text):
        raise RemoteProtocolError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    value = int(text)
    if value >> bits:
        raise RemoteProtocolError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def _boolean(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise RemoteProtocolError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE
