"""Every stored seed, and some hundred inputs made of them, in the ordinary run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
CHANCE = 20240101
MUTANTS = 200


def test_each_target_has_seeds_and_no_others_are_there() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    seeds = sorted((CORPUS / target).iterdir())
    assert seeds
    for seed in seeds:
        print(f".venv/bin/python -m tests.fuzz.one {target} {seed}")  # shown if it fails
        TARGETS[target](seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_mutants_of_seeds(target: str) -> None:
    seeds = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for data in itertools.islice(mutated(seeds, CHANCE), len(seeds), len(seeds) + MUTANTS):
        try:
            TARGETS[target](data)
        except Exception as err:
            raise AssertionError(f"{target}: {data.hex()}") from err


def test_chance_is_repeatable() -> None:
    first, second = (itertools.islice(mutated([b"abc", b"d"], 7), 50) for _ in range(2))
    assert list(first) == list(second)
