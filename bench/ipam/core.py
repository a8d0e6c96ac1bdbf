"""Figures of the allocator's core: ``python -m bench.ipam.core [--quick]``, one JSON object.

- ``full_range_core_s``, ``full_range_rss_mb``: one peer hands out every address of 10.32.0.0/12, 64
  requests a batch, with container IDs of 64 hex digits; no store. Memory is the growth of the
  process.
- ``allocate_us``, ``free_us``: one request in a batch of its own, in a space full of holes.
- a full gossip of a ring of 1,000 peers: :class:`Merging`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from base.names import PeerName
from ipam import wire
from ipam.address import Cidr
from ipam.allocator import Allocator
from ipam.events import Answered
from ipam.options import AllocatorOptions, Mode
from ipam.ring import Ring
from ipam.store import Entry, MemoryStore, Stored
from ipam.wire import GossipState, RingState

UNIVERSE: Final = Cidr.parse("10.32.0.0/12")
NAME: Final = PeerName.from_int(0xCE0000000001)
BATCH: Final = 64


def allocator(universe: Cidr = UNIVERSE) -> Allocator:
    """A peer that owns everything."""
    options = AllocatorOptions(NAME, "host1", 7, universe, mode=Mode.SEED, seeds=(NAME,))
    core = Allocator(options, 0.0, random.Random(1))
    core.restore(Stored(), (), 0.0)
    _commit(core)
    return core


def _commit(core: Allocator) -> int:
    """As a shell would with a store that takes no time; the answers."""
    if core.take_change() is not None:
        core.committed()
    return sum(isinstance(event, Answered) and event.error is None for event in core.take_events())


def full_range(universe: Cidr = UNIVERSE) -> dict[str, float]:
    """Hand out all of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    core = allocator(universe)
    count, answered = universe.size - 2, 0
    start = time.process_time()
    for first in range(0, count, BATCH):
        for request in range(first, min(first + BATCH, count)):
            core.allocate(request, f"{request:064x}", None, 0.0, is_container=True)
        answered += _commit(core)
    used = time.process_time() - start
    assert answered == count
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "full_range_core_s": round(used, 2),
        "full_range_rss_mb": round(grown / 1024, 1),
        "full_range_allocate_us": round(used / count * 1e6, 2),
    }


def single_requests(count: int = 20_000) -> dict[str, float]:
    """Allocations and frees one by one in a space with a hole at every second address."""
    core = allocator(Cidr.parse("10.32.0.0/16"))
    for request in range(50_000):
        core.allocate(request, f"c{request}", None, 0.0)
    for request in range(0, 50_000, 2):
        core.delete(100_000 + request, f"c{request}", 0.0)
    _commit(core)

    def each(action: Callable[[int], object]) -> float:
        start = time.process_time()
        for number in range(count):
            action(number)
            _commit(core)
        return (time.process_time() - start) / count * 1e6

    allocate = each(lambda n: core.allocate(200_000 + n, f"x{n}", None, 100.0))
    free = each(lambda n: core.delete(300_000 + n, f"x{n}", 200.0))
    return {"allocate_us": round(allocate, 1), "free_us": round(free, 1)}


def big_ring(peers: int) -> Ring:
    """A ring after some life: each peer has given a few blocks to others."""
    rng = random.Random(2)
    numbers = [int(NAME) + index for index in range(peers)]
    ring = Ring(UNIVERSE.range, numbers[0])
    ring.claim_for_peers(numbers)
    for _ in range(peers):
        entry = rng.choice(ring.entries)
        ring.peer = entry.peer
        piece = ring.pieces(ring.index_of(entry.token))[-1]
        if piece.size >= 16:
            quarter = piece.size // 4
            where = piece._replace(start=piece.start + quarter, end=piece.start + 2 * quarter)
            ring.grant(where, rng.choice(numbers))
    ring.peer = numbers[0]
    ring.entries = [entry._replace(version=rng.randrange(2000)) for entry in ring.entries]
    return ring


class Merging(msgspec.Struct, frozen=True):
    """Milliseconds by round for a gossip of ``size`` bytes about ``entries`` tokens.

    ``news``: decoded and merged, one entry being new; ``same``: none; ``encode``: made.
    """

    entries: int
    size: int
    news: list[float]
    same: list[float]
    encode: list[float]


def merging(peers: int = 1000, rounds: int = 15) -> Merging:
    """Gossip of a large ring."""
    ring = big_ring(peers)
    store = MemoryStore()
    core = allocator()
    nicks = {int(NAME) + index: f"host{index}" for index in range(peers)}

    def message(entries: list[Entry]) -> bytes:
        state = RingState(ring.universe, ring.peer + 1, tuple(entries), (int(NAME),))
        return wire.encode_state(GossipState(1, nicks, None, state))

    others = [index for index, entry in enumerate(ring.entries) if entry.peer != ring.peer]
    entries = ring.entries
    core = Allocator(
        AllocatorOptions(NAME, "host1", 7, UNIVERSE, mode=Mode.OBSERVER), 0.0, random.Random(1)
    )
    core.restore(store.load(), (), 0.0)
    core.on_gossip(message(entries), 0.0)
    _commit(core)
    news: list[float] = []
    same: list[float] = []
    encode: list[float] = []
    for number in range(rounds):
        index = others[number]
        entries[index] = entries[index]._replace(version=entries[index].version + 1)
        start = time.process_time()
        data = message(entries)
        encode.append(time.process_time() - start)
        for times in (news, same):
            start = time.process_time()
            core.on_gossip(data, 0.0)
            times.append(time.process_time() - start)
            _commit(core)
    return Merging(len(entries), len(data), _ms(news), _ms(same), _ms(encode))


def _ms(seconds: list[float]) -> list[float]:
    return [round(value * 1000, 3) for value in seconds]


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures; ``quick`` with a smaller range."""
    universe = Cidr.parse("10.32.0.0/16") if quick else UNIVERSE
    merged = msgspec.to_builtins(merging())
    return {**full_range(universe), **single_requests(2000 if quick else 20_000), **merged}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a /16 instead of a /12")
    json.dump(measure(quick=parser.parse_args().quick), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
