"""The peers file: a fixed table of the routers of a cluster, one file for all hosts.

    mtu = 1410                       # optional, overlay MTU of every link; otherwise measured

    [[peer]]
    name     = "ce:01:00:00:00:01"   # peer name, six octets
    nickname = "host1"               # optional; default: the name's text
    address  = "192.0.2.1:6783"      # underlay IPv4 address; the port defaults to 6783

    [[link]]                         # optional; without any link every peer reaches every other
    between = ["host1", "host2"]     # names or nicknames
    mtu     = 8950                   # optional

Rules: every error names file, line and remedy (ConfigError); a file is taken whole or not at all;
nothing here does I/O but :func:`read_file`. What the router gets is :func:`snapshot_of`, seen from
one of the peers.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from base.errors import ConfigError
from base.ipc import BroadcastRoute, Connection, Peer, Snapshot, UnicastRoute
from base.names import UNKNOWN_PEER, PeerName, parse_nickname
from control.toml_lines import LineIndex
from mesh.routes import Graph, Link, broadcast_routes, unicast_routes

DEFAULT_PORT: Final = 6783
MTU_MIN: Final = 552
MTU_MAX: Final = 65535
PEERS_MAX: Final = 65000  # the data path numbers peers in 16 bits

_PORT: Final = re.compile(r"[0-9]{1,5}")
_TOP_KEYS: Final = ("peer", "link", "mtu")
_PEER_KEYS: Final = ("name", "nickname", "address")
_LINK_KEYS: Final = ("between", "mtu")


@dataclass(slots=True, frozen=True)
class StaticPeer:
    """One router: its name, its label, and where its datagrams are to be sent (dotted IPv4)."""

    name: PeerName
    nick: str
    addr: str
    port: int


@dataclass(slots=True, frozen=True)
class StaticLink:
    """Two peers that exchange datagrams, ``ends`` ascending; ``mtu`` in bytes, 0: measure it."""

    ends: tuple[PeerName, PeerName]
    mtu: int = 0


@dataclass(slots=True, frozen=True)
class PeerTable:
    """A whole peers file; ``peers`` and ``links`` ascend by name.

    ``links`` is None for a full mesh, whose links would be half a million for a thousand peers;
    ``mtu`` is that of its links.
    """

    peers: tuple[StaticPeer, ...]
    links: tuple[StaticLink, ...] | None = None
    mtu: int = 0


def read_file(path: Path) -> PeerTable:
    """Read and check a peers file.

    Raises:
        ConfigError: one line: file, line, what is wrong, what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise ConfigError(f"{path}: no such file; write one or name another") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not UTF-8 text; is it the right file?") from err
    except OSError as err:
        reason = err.strerror or str(err)
        raise ConfigError(f"{path}: cannot be read ({reason}); check path and permissions") from err
    return parse(text, str(path))


def parse(text: str, file: str = "peers.toml") -> PeerTable:
    """Table from the text of a peers file; ``file`` is only for messages.

    Raises:
        ConfigError: as :func:`read_file`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(_syntax_error(file, str(err), text)) from err
    except ValueError as err:  # int() on thousands of digits, so their line is the longest
        lengths = [len(line) for line in text.splitlines()]
        line = 1 + lengths.index(max(lengths))
        raise ConfigError(f"{file}:{line}: a number is too long; mend this line") from err
    except RecursionError as err:
        raise ConfigError(f"{file}:1: nested too deeply; is it the right file?") from err
    return _Reader(file, LineIndex(text)).table(document)


def _syntax_error(file: str, message: str, text: str) -> str:
    """Put the line first; tomllib says ``... (at line 3, column 7)`` or ``(at end ...)``."""
    what, _, where = message.rpartition(" (at ")
    line = where.removeprefix("line ").partition(",")[0]
    if not line.isdigit():
        line = str(max(1, len(text.splitlines())))
    return f"{file}:{line}: not valid TOML: {what or message}; mend this line"


def _name_or_none(text: str) -> PeerName | None:
    try:
        return PeerName.parse(text)
    except ValueError:
        return None


class _Reader:
    """One pass over a parsed document; holds what was seen, to name both places of a clash."""

    def __init__(self, file: str, lines: LineIndex) -> None:
        self._file = file
        self._lines = lines
        self._peers: dict[PeerName, StaticPeer] = {}
        # name text, nickname or "address ..." → whose it is, and the line that says so
        self._idents: dict[str, tuple[PeerName, int]] = {}

    def table(self, document: dict[str, Any]) -> PeerTable:
        for key in document:
            if key not in _TOP_KEYS:
                raise self._error(self._lines.at(key), _unknown_key(key, _TOP_KEYS))
        mtu = self._mtu(document, self._lines.at("mtu"))
        entries = self._tables(document, "peer")
        if not entries:
            raise self._error(1, "no peer; add a [[peer]] with name and address for every host")
        if len(entries) > PEERS_MAX:
            line = self._lines.at("peer", PEERS_MAX)
            raise self._error(line, f"more than {PEERS_MAX} peers; split the cluster")
        for index, entry in enumerate(entries):
            self._peer(index, entry)
        peers = tuple(self._peers[name] for name in sorted(self._peers))
        entries = self._tables(document, "link")
        if not entries:
            return PeerTable(peers, None, mtu)
        links = sorted(self._links(entries, mtu), key=lambda link: link.ends)
        return PeerTable(peers, tuple(links), mtu)

    def _error(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self._file}:{line}: {message}")

    def _tables(self, document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        entries = document.get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._error(self._lines.at(kind), f"{kind} is not a list; write [[{kind}]]")
        return entries

    def _mtu(self, table: dict[str, Any], line: int) -> int:
        mtu = table.get("mtu", 0)
        if "mtu" not in table:
            return 0
        if isinstance(mtu, bool) or not isinstance(mtu, int) or not MTU_MIN <= mtu <= MTU_MAX:
            raise self._error(
                line,
                f"mtu {mtu!r} is not a number from {MTU_MIN} to {MTU_MAX}; leave it out to measure",
            )
        return mtu

    def _text(self, table: dict[str, Any], kind: str, index: int, key: str) -> tuple[str, int]:
        line = self._lines.at(kind, index, key)
        if key not in table:
            raise self._error(self._lines.at(kind, index), f"[[{kind}]] without {key}; add it")
        value = table[key]
        if not isinstance(value, str):
            raise self._error(line, f"{key} {value!r} is not text; put it in quotes")
        return value, line

    def _peer(self, index: int, entry: dict[str, Any]) -> None:
        for key in entry:
            if key not in _PEER_KEYS:
                line = self._lines.at("peer", index, key)
                raise self._error(line, _unknown_key(key, _PEER_KEYS))
        name_text, name_line = self._text(entry, "peer", index, "name")
        try:
            name = PeerName.parse(name_text)
        except ValueError as err:
            raise self._error(name_line, f'{err}; write six octets as "ce:01:00:00:00:01"') from err
        if name == UNKNOWN_PEER:
            raise self._error(name_line, f"{name} means no peer at all; choose another name")
        self._claim(str(name), name_line, name)
        nick = str(name)
        if "nickname" in entry:
            nick, nick_line = self._text(entry, "peer", index, "nickname")
            try:
                parse_nickname(nick)
            except ValueError as err:
                raise self._error(nick_line, f"{err}; use the host's name") from err
            if _name_or_none(nick) not in (None, name):
                raise self._error(
                    nick_line, f'nickname "{nick}" reads as a name; use the host\'s name'
                )
            if nick != str(name):
                self._claim(nick, nick_line, name)
        address_text, address_line = self._text(entry, "peer", index, "address")
        try:
            addr, port = parse_address(address_text)
        except ConfigError as err:
            raise self._error(address_line, str(err)) from err
        self._claim(f"address {addr}:{port}", address_line, name)
        self._peers[name] = StaticPeer(name, nick, addr, port)

    def _claim(self, ident: str, line: int, name: PeerName) -> None:
        if ident in self._idents:
            earlier = self._idents[ident][1]
            raise self._error(line, f"{ident} is taken by line {earlier}; give each peer its own")
        self._idents[ident] = (name, line)

    def _links(self, entries: list[dict[str, Any]], mtu: int) -> Iterable[StaticLink]:
        links: dict[tuple[PeerName, PeerName], StaticLink] = {}
        lines: dict[tuple[PeerName, PeerName], int] = {}
        for index, entry in enumerate(entries):
            for key in entry:
                if key not in _LINK_KEYS:
                    line = self._lines.at("link", index, key)
                    raise self._error(line, _unknown_key(key, _LINK_KEYS))
            ends, line = self._ends(index, entry)
            if ends in links:
                raise self._error(
                    line, f"this link stands on line {lines[ends]} already; remove one"
                )
            own_mtu = self._mtu(entry, self._lines.at("link", index, "mtu"))
            links[ends] = StaticLink(ends, own_mtu or mtu)
            lines[ends] = line
        return links.values()

    def _ends(self, index: int, entry: dict[str, Any]) -> tuple[tuple[PeerName, PeerName], int]:
        line = self._lines.at("link", index, "between")
        between = entry.get("between")
        if not (
            isinstance(between, list)
            and len(between) == 2
            and all(isinstance(end, str) for end in between)
        ):
            raise self._error(
                line, 'a link joins two peers; write between = ["nickname or name", "another"]'
            )
        names: list[PeerName] = []
        for end in between:
            name = _name_or_none(end)
            if end in self._idents:
                name = self._idents[end][0]
            if name not in self._peers or name is None:
                raise self._error(
                    line, f'no peer is called "{end}"; add a [[peer]] or mend the link'
                )
            names.append(name)
        low, high = sorted(names)
        if low == high:
            raise self._error(line, f'"{between[0]}" is linked to itself; name two peers')
        return (low, high), line


def _unknown_key(key: str, known: tuple[str, ...]) -> str:
    return f'unknown key "{key}"; known here: {", ".join(known)}'


def parse_address(text: str) -> tuple[str, int]:
    """Dotted IPv4 and port from ``ip`` or ``ip:port``.

    Raises:
        ConfigError: IPv6, a host name, an address nobody can listen on, or a bad port.
    """
    host, colon, port_text = text.partition(":")
    if text.startswith("[") or ":" in port_text:
        raise ConfigError(f'address "{text}": sleeve runs over IPv4 only; give an IPv4 address')
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        hint = "host names are not looked up; " if any(char.isalpha() for char in host) else ""
        raise ConfigError(
            f'address "{text}" is not an IPv4 address; {hint}write "192.0.2.1" or "192.0.2.1:6783"'
        ) from None
    if (
        address.is_unspecified
        or address.is_multicast
        or address == ipaddress.IPv4Address(2**32 - 1)
    ):
        raise ConfigError(f'address "{text}" is no host\'s address; give that of an interface')
    if not colon:
        return str(address), DEFAULT_PORT
    if not (_PORT.fullmatch(port_text) and 1 <= int(port_text) <= 65535):
        raise ConfigError(f'address "{text}": the port is no number; write one from 1 to 65535')
    return str(address), int(port_text)


def identify(table: PeerTable, file: str, name: str | None, nick: str) -> StaticPeer:
    """Which peer of the table this host is: by ``name`` if given, else by nickname.

    Raises:
        ConfigError: names the option that settles it.
    """
    if name is not None:
        try:
            wanted = PeerName.parse(name)
        except ValueError as err:
            raise ConfigError(f'--name: {err}; write six octets as "ce:01:00:00:00:01"') from err
        for peer in table.peers:
            if peer.name == wanted:
                return peer
        raise ConfigError(
            f"--name: {file} has no peer {wanted}; add a [[peer]] for this host or name another"
        )
    for peer in table.peers:
        if peer.nick == nick:
            return peer
    raise ConfigError(
        f'--nickname: {file} has no peer with nickname "{nick}"; say who this host is with '
        f"--name or --nickname (known: {_some(peer.nick for peer in table.peers)})"
    )


def _some(idents: Iterator[str], most: int = 5) -> str:
    known = list(idents)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def connection_uid(one: PeerName, other: PeerName) -> int:
    """A 64-bit number for a link that both its ends compute alike; heartbeats carry it."""
    low, high = sorted((one, other))
    digest = hashlib.sha256(b"weft static link" + low.octets + high.octets).digest()
    return int.from_bytes(digest[:8], "big")


def snapshot_of(table: PeerTable, ourself: StaticPeer, seq: int = 1) -> Snapshot:
    """The table as the router of ``ourself`` needs it.

    Peers and unicast routes leave ourselves out; broadcast routes hold our own. Every tuple ascends
    by name, so that equal tables give equal snapshots. The end with the lower name is said to have
    dialled.
    """
    names = [peer.name for peer in table.peers]
    if table.links is None:
        mtus = {name: table.mtu for name in names if name != ourself.name}
        unicast = {name: name for name in mtus}
        broadcast = {name: frozenset(mtus if name == ourself.name else ()) for name in names}
    else:
        mtus = {
            link.ends[link.ends[0] == ourself.name]: link.mtu
            for link in table.links
            if ourself.name in link.ends
        }
        reports = [Link(*link.ends) for link in table.links]
        reports += [Link(link.target, link.source) for link in reports]
        graph = Graph.established(names, reports)
        unicast = unicast_routes(graph, ourself.name)
        broadcast = broadcast_routes(graph, ourself.name)
    return Snapshot(
        seq=seq,
        name=ourself.name.octets,
        nick=ourself.nick,
        peers=tuple(
            Peer(peer.name.octets, peer.nick) for peer in table.peers if peer.name != ourself.name
        ),
        connections=tuple(
            Connection(
                peer=peer.name.octets,
                addr=peer.addr,
                port=peer.port,
                uid=connection_uid(ourself.name, peer.name),
                outbound=ourself.name < peer.name,
                mtu=mtus[peer.name],
            )
            for peer in table.peers
            if peer.name in mtus
        ),
        unicast=tuple(
            UnicastRoute(dst.octets, via.octets)
            for dst, via in sorted(unicast.items())
            if dst != ourself.name
        ),
        broadcast=tuple(
            BroadcastRoute(source.octets, tuple(peer.octets for peer in sorted(via)))
            for source, via in sorted(broadcast.items())
        ),
    )
