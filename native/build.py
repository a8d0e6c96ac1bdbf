"""cffi builder of ``native._datapath``: which files, which flags, which variant.

The binding is API mode: cffi compiles a small C file of its own beside ours into one extension
module, so sizes and constants come from the compiler and the GIL is released around every call.
What Python may call is exactly what the files in ``native/cdef`` declare, joined in name order.

Our C is compiled with every warning an error. The file that cffi writes follows other rules, so
its preamble switches the conversion and sign warnings off for itself alone, and Python's headers
count as system headers.

No ``-march``: the module runs on any x86-64 (or other) CPU of the architecture, and wide-vector
code is chosen at run time by the C code itself.

Run as a script it builds in place, or with ``WEFT_SANITIZE=address,undefined`` into
``build/sanitize/native``, a twin of the package that is used when ``build/sanitize`` comes first on
``PYTHONPATH``; both builds exist side by side.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
SANITIZE_DIR = ROOT / "build" / "sanitize"

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-Wshadow",
    "-Wpointer-arith",
    "-Wstrict-prototypes",
]

#: libsodium and OpenSSL have what every cipher needs; Intel's IPsec-MB does AES-GCM in wide vectors
#: and is used where it was there when this was built.
LIBRARIES = ["sodium", "crypto"]
IPSEC_MB_HEADER = "intel-ipsec-mb.h"

PREAMBLE = """
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wshadow"
#include "weft_native.h"
"""


def flags(sanitize: str) -> tuple[list[str], list[str]]:
    """Compiler and linker flags; ``sanitize`` is a comma list as ``-fsanitize`` takes it, or ""."""
    compile_flags = ["-std=gnu11", "-fvisibility=hidden", "-fno-strict-aliasing", *WARNINGS]
    for kind in ("include", "platinclude"):
        compile_flags += ["-isystem", sysconfig.get_path(kind)]
    link_flags: list[str] = []
    if sanitize:
        compile_flags += [
            "-O1",
            "-g",
            "-fno-omit-frame-pointer",
            f"-fsanitize={sanitize}",
            "-fno-sanitize-recover=all",
        ]
        link_flags.append(f"-fsanitize={sanitize}")
    else:
        compile_flags += ["-O3", "-g1"]
    return compile_flags, link_flags


def has_ipsec_mb() -> bool:
    """Whether the compiler finds IPsec-MB; ``WEFT_IPSEC_MB=0`` builds without it all the same."""
    if os.environ.get("WEFT_IPSEC_MB") == "0":
        return False
    compiler = shlex.split(os.environ.get("CC") or "cc")
    probe = f"#include <{IPSEC_MB_HEADER}>\n"
    found = subprocess.run(
        [*compiler, "-E", "-x", "c", "-"], input=probe, text=True, capture_output=True, check=False
    )
    return found.returncode == 0


def relative(paths: list[Path]) -> list[str]:
    """Paths below the project's root, as setuptools wants them, in a stable order."""
    return [path.relative_to(ROOT).as_posix() for path in sorted(paths)]


def make_builder(sanitize: str) -> FFI:
    """The builder of the module in the plain (``""``) or a sanitized variant."""
    builder = FFI()
    for part in sorted((NATIVE / "cdef").glob("*.h")):
        builder.cdef(part.read_text(encoding="utf-8"))
    compile_flags, link_flags = flags(sanitize)
    libraries = list(LIBRARIES)
    if has_ipsec_mb():
        libraries.append("IPSec_MB")
        compile_flags.append("-DWEFT_IPSEC_MB")
    builder.set_source(
        "native._datapath",
        PREAMBLE,
        sources=relative(list((NATIVE / "src").glob("*.c"))),
        depends=relative([*(NATIVE / "src").glob("*.h"), *(NATIVE / "include").glob("*.h")]),
        include_dirs=["native/include", "native/src"],
        libraries=libraries,
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    return builder


def link_twin() -> None:
    """Make ``build/sanitize/native`` a copy by links of everything but the compiled module."""
    twin = SANITIZE_DIR / "native"
    twin.mkdir(parents=True, exist_ok=True)
    for link in twin.iterdir():
        if link.is_symlink():
            link.unlink()
    for path in NATIVE.iterdir():
        if path.suffix in (".py", ".pyi"):
            (twin / path.name).symlink_to(path)


def main() -> None:
    """Build the variant that ``WEFT_SANITIZE`` names."""
    os.chdir(ROOT)
    sanitize = os.environ.get("WEFT_SANITIZE", "")
    if sanitize:
        link_twin()
        target = SANITIZE_DIR
        # setuptools compiles relative sources below tmpdir, so the tree is reached by links
        for name in ("src", "include"):
            link = SANITIZE_DIR / "native" / name
            if not link.is_symlink():
                link.symlink_to(NATIVE / name)
    else:
        target = ROOT
    built = Path(make_builder(sanitize).compile(tmpdir=str(target), verbose=False))
    # another builder may have named it after another ABI, and Python would prefer the stale one
    for stale in built.parent.glob("_datapath*.so"):
        if stale.name != built.name:
            stale.unlink()


ffibuilder = make_builder(os.environ.get("WEFT_SANITIZE", ""))

if __name__ == "__main__":
    main()
