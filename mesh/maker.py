"""Which addresses to dial, and when: user's peers, discovered peers, back-off.

    waiting ──due──▶ attempting ──added──▶ connected
       ▲  ▲               │ failed            │ ended
       │  └───────────────┴───────────────────┘
       └──valid again── suspended ◀──direct, but not to be tried now

A *direct* peer is one the user gave; its text is its identity, its address was resolved once. With
discovery every address that another peer is connected at becomes a target as well, until we are
connected to that peer ourselves. After a failure a target waits between half and one and a half
times its interval, and the interval grows by half: up to six minutes when a connection was refused
or ended, up to six seconds when nobody answered.

Source of truth: mesh specification 7 and 14.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from base.errors import ConfigError
from base.names import PeerName
from mesh.peer import Peer

INTERVAL_INITIAL_S: Final = 2.0
INTERVAL_MAX_S: Final = 6 * 60.0
INTERVAL_FACTOR: Final = 1.5
#: While nobody answers at an address only SYNs go there, and a healed path must be found soon.
INTERVAL_UNREACHED_S: Final = 6.0
RESET_AFTER_S: Final = 60.0
#: Addresses to dial are what others say; so neither their number nor the dials at once are theirs.
DISCOVERED_MAX: Final = 4096
ATTEMPTS_MAX: Final = 64
_BUSY_S: Final = 1.0

_PORT: Final = re.compile(r"[0-9]{1,5}")


class TargetState(enum.Enum):
    """See the diagram above."""

    WAITING = "waiting"
    ATTEMPTING = "attempting"
    CONNECTED = "connected"
    SUSPENDED = "suspended"


@dataclass(slots=True)
class Target:
    """An address we may dial. ``try_after`` None: never, until the user adds it again."""

    try_after: float | None
    state: TargetState = TargetState.WAITING
    last_error: str | None = None
    interval_s: float = INTERVAL_INITIAL_S


@dataclass(slots=True, frozen=True)
class DirectPeer:
    """A peer as the user gave it: its ``text``, the IP it resolved to, the port if any."""

    text: str
    ip: str
    port: int | None = None


class OwnConnection(NamedTuple):
    """One of our connections: to whom, at what remote ``IP:port``, and who dialled."""

    peer: PeerName
    addr: str
    outbound: bool


class Attempt(NamedTuple):
    """Dial ``addr`` now; ``direct`` targets may turn out to be peers we never heard of."""

    addr: str
    direct: bool


def join_addr(ip: str, port: int) -> str:
    """``IP:port``, an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def split_addr(addr: str) -> tuple[str, int] | None:
    """IP text and port of ``IP:port``; None for anything else."""
    host, _, port = addr.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return (host, int(port)) if _PORT.fullmatch(port) and int(port) < 65536 else None


def parse_peer_text(text: str) -> tuple[str, int | None]:
    """Host and port of ``host[:port]``.

    Raises:
        ConfigError: no host, or no such port.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    elif ":" in host and not host.startswith("["):
        host, port, colon = text, "", ""  # a bare IPv6 address
    host = host.removeprefix("[").removesuffix("]")
    if not host or (colon and port == "" and text.endswith(":")):
        raise ConfigError(f"invalid peer name {json.dumps(text)}, should be host[:port]")
    if port and not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
        raise ConfigError(f"peer {json.dumps(text)}: {json.dumps(port)} is not a port number")
    return host, int(port) if port else None


class ConnectionMaker:
    """The targets; what to dial is the result of :meth:`evaluate`."""

    def __init__(
        self, ourself: PeerName, *, port: int, discovery: bool, rng: random.Random
    ) -> None:
        self.port = port
        self.discovery = discovery
        self.terminations = 0
        self.direct: dict[str, DirectPeer] = {}
        self.targets: dict[str, Target] = {}
        self._ourself = ourself
        self._rng = rng

    # --- the user --------------------------------------------------------------------------------

    def add(self, peers: Iterable[DirectPeer], *, replace: bool, now: float) -> None:
        """Add direct peers, instead of all others with ``replace``; known ones are due at once."""
        if replace:
            self.direct.clear()
        for peer in peers:
            self.direct[peer.text] = peer
            if (target := self.targets.get(self._addr(peer))) is not None:
                self._try_now(target, now)

    def forget(self, texts: Iterable[str]) -> None:
        """Remove direct peers; their connections stay."""
        for text in texts:
            self.direct.pop(text, None)

    # --- what became of attempts -----------------------------------------------------------------

    def attempt_failed(self, addr: str, reason: str, now: float) -> None:
        """Dialling failed."""
        if (target := self.targets.get(addr)) is not None:
            target.state = TargetState.WAITING
            target.last_error = reason
            self._try_later(target, now, INTERVAL_UNREACHED_S)

    def connected(self, addr: str) -> None:
        """The connection that was dialled at ``addr`` has been added."""
        if (target := self.targets.get(addr)) is not None:
            target.state = TargetState.CONNECTED

    def ended(
        self, addr: str | None, reason: str, now: float, *, never_again: bool = False
    ) -> None:
        """A connection, added or not, has ended; ``addr`` is that of the one that we dialled."""
        target = self.targets.get(addr) if addr is not None else None
        if target is None:
            return
        target.state = TargetState.WAITING
        target.last_error = reason
        if never_again:
            target.try_after = None
        elif target.try_after is not None and now > target.try_after + RESET_AFTER_S:
            self._try_now(target, now)
        else:
            self._try_later(target, now)

    def _try_now(self, target: Target, now: float) -> None:
        target.try_after = now
        target.interval_s = INTERVAL_INITIAL_S

    def _try_later(self, target: Target, now: float, most_s: float = INTERVAL_MAX_S) -> None:
        wait_s = target.interval_s / 2 + self._rng.uniform(0, target.interval_s)
        target.try_after = now + wait_s
        target.interval_s = min(target.interval_s * INTERVAL_FACTOR, most_s)

    # --- evaluation ------------------------------------------------------------------------------

    def evaluate(
        self, own: Iterable[OwnConnection], peers: Iterable[Peer], now: float
    ) -> tuple[list[Attempt], float | None]:
        """Targets to dial now, which become attempting; and when the next one is due."""
        own = list(own)
        valid: set[str] = set()
        direct = self._direct_addrs(own, valid)
        if self.discovery:
            valid |= self._discovered(own, peers)
        valid -= {connection.addr for connection in own}
        for addr in valid - self.targets.keys():
            self.targets[addr] = Target(now)
        attempts: list[Attempt] = []
        earliest: float | None = None
        free = ATTEMPTS_MAX - sum(
            target.state is TargetState.ATTEMPTING for target in self.targets.values()
        )
        for addr, target in list(self.targets.items()):
            if target.state not in (TargetState.WAITING, TargetState.SUSPENDED):
                continue
            if addr not in valid:
                if addr in direct:
                    target.state = TargetState.SUSPENDED
                else:
                    del self.targets[addr]
                continue
            target.state = TargetState.WAITING
            if target.try_after is None:
                continue
            due = target.try_after
            if due <= now and len(attempts) >= free and addr not in direct:
                due = now + _BUSY_S
            if due <= now:
                target.state = TargetState.ATTEMPTING
                attempts.append(Attempt(addr, addr in direct))
            elif earliest is None or due < earliest:
                earliest = due
        return attempts, earliest

    def _direct_addrs(self, own: list[OwnConnection], valid: set[str]) -> set[str]:
        """Addresses of direct peers; those that may be tried are added to ``valid``."""
        calling = {split[0] for one in own if not one.outbound and (split := split_addr(one.addr))}
        direct: set[str] = set()
        for peer in self.direct.values():
            addr = self._addr(peer)
            direct.add(addr)
            # without a port we cannot tell whether who called us from there is the one meant
            if peer.port is not None or peer.ip not in calling:
                valid.add(addr)
        return direct

    def _discovered(self, own: list[OwnConnection], peers: Iterable[Peer]) -> set[str]:
        """Addresses at which others are connected to peers that we are not connected to."""
        near = {connection.peer for connection in own} | {self._ourself}
        found: set[str] = set()
        for peer in peers:
            if peer.name == self._ourself:
                continue
            for remote in peer.neighbours - near:
                record = peer.connections[remote]
                split = split_addr(record.addr)
                if split is None or not split[1]:
                    continue
                if len(found) >= DISCOVERED_MAX:
                    return found
                # the port that an inbound connection came from leads nowhere
                found.add(join_addr(*split) if record.outbound else join_addr(split[0], self.port))
        return found

    def _addr(self, peer: DirectPeer) -> str:
        return join_addr(peer.ip, self.port if peer.port is None else peer.port)
