"""Inputs from seeds by seeded chance: the same seed of the chance gives the same inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

_TELLING: Final = (0, 1, 4, 0x7F, 0x80, 0xF8, 0xFE, 0xFF)
LENGTH_MAX: Final = 4096


def mutated(seeds: Sequence[bytes], chance: int) -> Iterator[bytes]:
    """Endless: each seed as it is, then changed in one to eight places, again and again."""
    rng = random.Random(chance)
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds) if seeds else b"")
        for _ in range(rng.randint(1, 8)):
            _change(data, rng, seeds)
        yield bytes(data[:LENGTH_MAX])


def _change(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    length = rng.choice((1, 1, 2, 4, rng.randint(1, 64)))
    kind = rng.randrange(6)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.choice(_TELLING)
    elif kind == 2:
        data[at:at] = rng.randbytes(length)
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = data[at : at + length]
    elif seeds:
        other = rng.choice(seeds)
        start = rng.randint(0, len(other))
        data[at : at + length] = other[start : start + rng.choice((length, len(other)))]
