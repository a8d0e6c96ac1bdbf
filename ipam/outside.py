"""Addresses in use outside the range, told to all peers, so that two of them are noticed.

Such an address is chosen by a user (``weave attach 10.9.0.1/24``) and known on its host only: Weave
says nothing when another host uses it, too. Peers of ours tell theirs by broadcast on a channel of
our own, which Weave passes on unread; who has none says nothing. A double is told to the operators
of both, and refused by neither: a container may have moved here from a host that will notice later.

A message, big-endian, is the whole list of one peer::

     0        1                 9                17                21
    +--------+-----------------+-----------------+-----------------+----
    | form 1 | process run, 64 | number, 64      | address, 32     | …      ascending, no doubles
    +--------+-----------------+-----------------+-----------------+----

Of one process run the higher number is the newer. A list is told again every minute and forgotten
after three. Source of truth: ipam specification 20.13, "Extension room".
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from base.errors import RemoteProtocolError
from base.names import PeerName, format_peer
from ipam.address import format_address
from ipam.outbox import Outbox
from ipam.peers import PeerBook
from ipam.state import LocalState

#: The mesh's channel for this.
OUTSIDE_CHANNEL: Final = "WeftOutside"
FORM: Final = 1
#: How often a list is told, and how long it counts.
TELL_S: Final = 60.0
KEEP_S: Final = 3 * TELL_S
#: After a peer has come it is told soon, not by all at once, and not for each of many that come.
WELCOME_S: Final = (0.5, 3.0)
SPACING_S: Final = 10.0
#: Addresses in one list, and kept of all, and peers whose lists are kept.
ADDRS_MAX: Final = 4096
ADDRS_TOTAL_MAX: Final = 1 << 18
PEERS_MAX: Final = 16_384
_HEAD: Final = struct.Struct(">BQQ")


@dataclass(slots=True, frozen=True)
class Listed:
    """What a peer told: in process run ``run``, as its message ``number``."""

    run: int
    number: int
    addrs: frozenset[int]


def encode(listed: Listed) -> bytes:
    """A message; of more addresses than may be, the lowest."""
    addrs = sorted(listed.addrs)[:ADDRS_MAX]
    return _HEAD.pack(FORM, listed.run, listed.number) + struct.pack(f">{len(addrs)}I", *addrs)


def decode(data: bytes) -> Listed | None:
    """A message; None if it is of another form, which a later version may send.

    Raises:
        RemoteProtocolError: it is damaged, or too long.
    """
    if not data:
        raise RemoteProtocolError("empty list of addresses")
    if data[0] != FORM:
        return None
    size = len(data) - _HEAD.size
    if size < 0 or size % 4 or size // 4 > ADDRS_MAX:
        raise RemoteProtocolError("bad length of a list of addresses")
    _, run, number = _HEAD.unpack_from(data)
    addrs = struct.unpack_from(f">{size // 4}I", data, _HEAD.size)
    if any(one >= two for one, two in pairwise(addrs)):
        raise RemoteProtocolError("list of addresses is not sorted")
    return Listed(run, number, frozenset(addrs))


class Outside:
    """See the module. The allocator's shell gives it messages and sends what :meth:`encode` makes
    when told to by :class:`ipam.events.TellOutside`.
    """

    def __init__(
        self,
        state: LocalState,
        peers: PeerBook,
        out: Outbox,
        rng: random.Random,
        counters: Counter[str],
        run: int,
    ) -> None:
        self._state, self._peers, self._out, self._rng = state, peers, out, rng
        self._counters = counters
        self._run = run
        self._number = 0
        self._told_of: Collection[int] = frozenset()
        self._tell_at: float | None = None
        self._welcome_from = 0.0
        # with the time until which each counts; and when to look for old ones
        self._lists: dict[int, tuple[Listed, float]] = {}
        self._sweep_at: float | None = None
        self._known_doubles: set[tuple[int, int]] = set()

    # --- telling ---------------------------------------------------------------------------------

    def poll(self, now: float) -> None:
        """Tell what has changed here since the last call."""
        if self._state.outside.keys() != self._told_of:
            self._told_of = frozenset(self._state.outside)
            self._tell(now)
            self._notice_doubles()

    def rolled_back(self, now: float) -> None:
        """What changed since the last commit did not, and may not have been told."""
        self._told_of = frozenset(self._state.outside)
        self._tell_at = now if self._told_of else None

    def _tell(self, now: float) -> None:
        self._number += 1
        self._out.tell_outside()
        self._tell_at = now + TELL_S * self._rng.uniform(0.9, 1.1) if self._told_of else None
        self._welcome_from = now + SPACING_S

    def encode(self) -> bytes:
        """Our list, as it is now."""
        return encode(Listed(self._run, self._number, frozenset(self._state.outside)))

    def peer_came(self, now: float) -> None:
        """Somebody who has heard nothing yet."""
        if self._tell_at is not None:
            soon = max(now + self._rng.uniform(*WELCOME_S), self._welcome_from)
            self._tell_at = min(self._tell_at, soon)

    # --- hearing ---------------------------------------------------------------------------------

    def on_broadcast(self, source: PeerName, data: bytes, now: float) -> None:
        """A peer's list. What cannot be read is counted: who passed it on could not read it."""
        try:
            listed = decode(data)
        except RemoteProtocolError:
            self._counters["unreadable lists of addresses outside the range"] += 1
            return
        peer = int(source)
        if listed is None or peer == self._peers.peer:
            return
        before = self._lists.get(peer)
        if before is not None and before[0].run == listed.run and before[0].number > listed.number:
            return
        if not self._has_room(peer, len(listed.addrs)):
            self._counters["lists of addresses outside the range beyond the limit"] += 1
            return
        self._lists[peer] = listed, now + KEEP_S
        if self._sweep_at is None:
            self._sweep_at = now + KEEP_S
        self._notice_doubles()

    def _has_room(self, peer: int, count: int) -> bool:
        """Whether so many addresses of a peer can be kept."""
        others = [len(one.addrs) for each, (one, _) in self._lists.items() if each != peer]
        return len(others) < PEERS_MAX and sum(others) + count <= ADDRS_TOTAL_MAX

    def _doubles(self) -> set[tuple[int, int]]:
        """Addresses in use here and at a peer in reach."""
        ours = self._state.outside.keys()
        if not ours:
            return set()
        return {
            (addr, peer)
            for peer, (listed, _) in self._lists.items()
            if self._peers.reachable(peer)
            for addr in ours & listed.addrs
        }

    def _notice_doubles(self) -> None:
        doubles = self._doubles()
        for double in sorted(doubles - self._known_doubles):
            self._out.notice(self._line(*double), warning=True)
        self._known_doubles = doubles

    def _line(self, addr: int, peer: int) -> str:
        held = self._state.holdings.at(addr)
        who = format_peer(PeerName.from_int(peer), self._peers.nick(peer))
        return f"{format_address(addr)} of {held.ident if held else '?'} is in use at {who}, too"

    def conflicts(self) -> list[str]:
        """A line for each address in use here and elsewhere."""
        return [self._line(*double) for double in sorted(self._doubles())]

    # --- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When :meth:`timeout` is to be called at the latest."""
        moments = (self._tell_at, self._sweep_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def timeout(self, now: float) -> None:
        """Tell again; forget who has been silent."""
        if self._tell_at is not None and self._tell_at <= now:
            self._tell(now)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._lists = {peer: one for peer, one in self._lists.items() if one[1] > now}
            self._sweep_at = min((until for _, until in self._lists.values()), default=None)
