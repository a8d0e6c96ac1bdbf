"""Fuzz every Python target: ``python -m tests.fuzz [-s SECONDS] [TARGET...]``.

``-s`` is the time of all of them together (60). Writes below build/fuzz/python only: grown corpora
(``corpus/TARGET``), logs, and inputs that broke a claim (``failed/TARGET-...``). Exit code 1 if any
target failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
OUT: Final = ROOT / "build" / "fuzz" / "python"
SEEDS: Final = Path(__file__).parent / "corpus"
#: What a target's start costs: imports with instrumentation.
START_S: Final = 1.0
#: The core is where most of the code is.
SHARES: Final = {"core": 4, "update": 2, "intro": 2, "gob": 2}


def run(target: str, seconds: int) -> bool:
    """One target for so long; whether all claims held."""
    grown, log = OUT / "corpus" / target, OUT / f"{target}.log"
    grown.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.one", target, f"-max_total_time={seconds}"]
    command += ["-timeout=60", "-rss_limit_mb=1024", "-max_len=4096", "-len_control=20"]
    command += ["-print_final_stats=1", f"-artifact_prefix={OUT}/failed/{target}-"]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [*command, str(grown), str(SEEDS / target)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=seconds + 180,
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    runs = re.search(r"number_of_executed_units: *(\d+)", text)
    coverage = re.findall(r"cov: (\d+)", text)
    shown = f"{runs[1] if runs else '?'} runs, coverage {coverage[-1] if coverage else '-'}"
    print(f"== python {target}, {seconds} s: {shown}", flush=True)
    if done.returncode != 0:
        print("\n".join(text.splitlines()[-60:]), flush=True)
        for file in sorted((OUT / "failed").glob(f"{target}-*"), key=os.path.getmtime)[-1:]:
            print(f"again: .venv/bin/python -m tests.fuzz.one {target} {file}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Fuzz the targets that were named, or all."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description="Fuzz the Python parsers.")
    parser.add_argument("-s", "--seconds", type=float, default=60.0)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no target {min(unknown)}; known: {', '.join(TARGETS)}")
    (OUT / "failed").mkdir(parents=True, exist_ok=True)
    shares = {target: SHARES.get(target, 1) for target in targets}
    to_share = max(0.0, options.seconds - START_S * len(targets)) / sum(shares.values())
    good = [run(target, max(1, round(to_share * share))) for target, share in shares.items()]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
