"""Fuzz one target by coverage: ``python -m tests.fuzz.one TARGET [libFuzzer option or path...]``.

A file as argument is replayed, and so a finding is reproduced. Where there is no Atheris, inputs
are seeds mutated at random (:mod:`tests.fuzz.mutate`), told by the seed of the chance.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.fuzz.mutate import mutated

ROOMS = ["base", "control", "crypto", "mesh", "tests.fuzz"]


def replay(target: str, paths: list[Path]) -> None:
    """Run each input once."""
    from tests.fuzz.targets import TARGETS

    for path in paths:
        print(path, file=sys.stderr)
        TARGETS[target](path.read_bytes())


def by_coverage(target: str, arguments: list[str]) -> None:
    """Hand over to Atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=ROOMS):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([f"tests.fuzz.one {target}", *arguments], TARGETS[target])
    atheris.Fuzz()


def by_chance(target: str, arguments: list[str]) -> None:
    """As much as can be done without Atheris in the time of ``-max_total_time``."""
    from tests.fuzz.targets import TARGETS

    options = dict(text[1:].split("=") for text in arguments if text.startswith("-"))
    folders = [Path(text) for text in arguments if not text.startswith("-")]
    seeds = [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]
    chance = int(options.get("seed", 0)) or time.time_ns()
    end = time.monotonic() + float(options.get("max_total_time", 60))
    runs = 0
    for data in mutated(seeds, chance):
        try:
            TARGETS[target](data)
        except Exception:
            file = Path(f"{options.get('artifact_prefix', '')}crash-{chance}-{runs}")
            file.write_bytes(data)
            print(f"seed {chance}, written to {file}", file=sys.stderr)
            raise
        runs += 1
        if time.monotonic() > end:
            break
    print(f"stat::number_of_executed_units: {runs}  seed {chance}")


def main() -> None:
    """See the module."""
    target, *arguments = sys.argv[1:]
    files = [Path(text) for text in arguments if Path(text).is_file()]
    if files:
        replay(target, files)
    elif _has_atheris():
        by_coverage(target, arguments)
    else:
        by_chance(target, arguments)


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return not os.environ.get("WEFT_FUZZ_BY_CHANCE")


if __name__ == "__main__":
    main()
