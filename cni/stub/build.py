"""Compile the stub: ``python cni/stub/build.py [TARGET]``.

Static, so that it runs on any host of this CPU family, whatever its libc. ``WEFT_SANITIZE``, as
``-fsanitize`` takes it, makes a dynamic one for tests instead. Needs nothing but a C compiler; run
by setup.py for a wheel and by tools/setup.sh in the tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "weft-cni"

FLAGS = [
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-Wshadow",
    "-Wpointer-arith",
    "-Wstrict-prototypes",
]


def build(target: Path, sanitize: str = "", compiler: str = "gcc") -> None:
    """Compile every C file of this folder into the program ``target``.

    Raises:
        subprocess.CalledProcessError: the compiler refuses; it has said why on standard error.
    """
    how = [f"-fsanitize={sanitize}", "-g", "-fno-sanitize-recover=all"] if sanitize else ["-static"]
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        subprocess.run([compiler, *FLAGS, *how, "-o", str(fresh), *sources], check=True)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    build(chosen, os.environ.get("WEFT_SANITIZE", ""), os.environ.get("CC", "gcc"))
