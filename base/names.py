"""Names of things on the overlay: peers, Ethernet addresses, nicknames.

A peer name is six octets, ordered as the 48-bit number they spell (first octet most significant),
written as ``ce:01:00:00:00:01``. It looks like a MAC address and often is one, but the two are kept
apart: a peer name may be abbreviated with ``::``, a MAC address may not.

Parsing raises ValueError; who calls knows whether the text came from a user (ConfigError) or from a
peer (RemoteProtocolError). Source of truth: mesh specification 1.1, vectors ``peer_names.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

NAME_LEN: Final = 6
MAC_LEN: Final = 6
NICKNAME_LEN_MAX: Final = 255

_GROUP: Final = re.compile(r"[0-9A-Fa-f]{1,2}")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


@dataclass(slots=True, frozen=True, order=True)
class PeerName:
    """Name of a router. ``octets`` are its 6 bytes as they stand on the wire."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != NAME_LEN:
            raise ValueError(f"a peer name has {NAME_LEN} octets, not {len(self.octets)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Name from text: six groups of one or two hex digits, or fewer around one ``::``.

        With ``::`` one to four groups must be present. Leading blanks are tolerated because the
        original tolerates them.

        Raises:
            ValueError: anything else.

        Ref: Weave Net 2.8.1 mesh peer_name_mac.go, PeerNameFromString.
        """
        body = text.lstrip(" ")
        head, gap, tail = body.partition("::")
        groups = head.split(":") if head else []
        if gap:
            after = tail.split(":") if tail else []
            present = len(groups) + len(after)
            groups = [*groups, *(["0"] * (NAME_LEN - present)), *after] if 1 <= present <= 4 else []
        if len(groups) != NAME_LEN or not all(_GROUP.fullmatch(group) for group in groups):
            raise ValueError(f'invalid peer name format: "{text}"')
        return cls(bytes(int(group, 16) for group in groups))

    @classmethod
    def from_int(cls, value: int) -> Self:
        """Name from its 48-bit number. Raises ValueError when it does not fit."""
        try:
            return cls(value.to_bytes(NAME_LEN, "big"))
        except OverflowError as err:
            raise ValueError(f"{value} is not a 48-bit peer name") from err

    def __int__(self) -> int:
        return int.from_bytes(self.octets, "big")

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        return self.octets.hex(":")


#: What the original calls UnknownPeerName; never the name of a router.
UNKNOWN_PEER: Final = PeerName(bytes(NAME_LEN))


@dataclass(slots=True, frozen=True, order=True)
class Mac:
    """Ethernet address, 6 bytes in transmission order."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != MAC_LEN:
            raise ValueError(f"a MAC address has {MAC_LEN} octets, not {len(self.octets)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Address from ``62:66:3f:b7:2e:c1``. Raises ValueError for any other form."""
        if not _MAC.fullmatch(text):
            raise ValueError(f'invalid MAC address: "{text}"')
        return cls(bytes.fromhex(text.replace(":", "")))

    @classmethod
    def of_bridge(cls, name: PeerName) -> Self:
        """The MAC that the bridge of peer ``name`` gets: the name without its multicast bit."""
        return cls(bytes([name.octets[0] & 0xFE]) + name.octets[1:])

    @property
    def is_multicast(self) -> bool:
        """True for group addresses, broadcast included."""
        return bool(self.octets[0] & 1)

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        return self.octets.hex(":")


def parse_nickname(text: str) -> str:
    """A nickname as given: 1 to 255 printable characters, no blanks, no brackets.

    Raises:
        ValueError: says which rule was broken.
    """
    if not text:
        raise ValueError("a nickname must not be empty")
    if len(text) > NICKNAME_LEN_MAX:
        raise ValueError(f"a nickname has at most {NICKNAME_LEN_MAX} characters")
    if not text.isprintable() or any(char in " ()" for char in text):
        raise ValueError(f"nickname {text!r} holds blanks, brackets or control characters")
    return text


def format_peer(name: PeerName, nick: str) -> str:
    """How peers are printed everywhere: ``name(nick)``."""
    return f"{name}({nick})"
