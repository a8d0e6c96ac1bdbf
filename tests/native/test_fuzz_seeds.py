"""Every seed of every fuzz target, replayed under the address and undefined sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from native.build import LIBRARIES, has_ipsec_mb

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

NATIVE = Path(__file__).parents[2] / "native"
TARGETS = sorted(path.stem for path in (NATIVE / "fuzz").glob("*.c") if path.stem != "replay")
FLAGS = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    *(f"-I{NATIVE / folder}" for folder in ("include", "src", "fuzz")),
]
LINK = ["-pthread", *(f"-l{name}" for name in LIBRARIES)]
if has_ipsec_mb():
    FLAGS.append("-DWEFT_IPSEC_MB")
    LINK.append("-lIPSec_MB")


def run(*command: str | Path) -> None:
    """Run a command; its output belongs to the failure."""
    # An address sanitizer preloaded for this process is the wrong one for the programs built here.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    result = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Objects of the whole C library and of the replaying main()."""
    folder = tmp_path_factory.mktemp("fuzz")
    sources = [*sorted((NATIVE / "src").glob("*.c")), NATIVE / "fuzz" / "replay.c"]
    objects = []
    for source in sources:
        target = folder / f"{source.stem}.o"
        run("cc", *FLAGS, "-c", source, "-o", target)
        objects.append(target)
    return objects


def test_every_target_has_seeds() -> None:
    folders = sorted(path.name for path in (NATIVE / "fuzz" / "corpus").iterdir())
    assert folders == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_replay(target: str, library: list[Path], tmp_path: Path) -> None:
    program = tmp_path / target
    run("cc", *FLAGS, NATIVE / "fuzz" / f"{target}.c", *library, *LINK, "-o", program)
    seeds = sorted((NATIVE / "fuzz" / "corpus" / target).iterdir())
    assert seeds
    run(program, *seeds)
