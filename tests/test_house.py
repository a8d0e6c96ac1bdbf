"""The house rules that no linter knows: who imports whom, what is shipped, what is declared where.

Source of truth for the arrows: the table "Who may import whom" of the style guide, repeated below.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Room → rooms it may import, besides itself.
ARROWS: dict[str, set[str]] = {
    "base": set(),
    "native": {"base"},
    "capture": {"base", "native"},
    "crypto": {"base", "native"},
    "router": {"base", "capture", "crypto", "native"},
    "mesh": {"base", "crypto"},
    "ipam": {"base"},
    "control": {"base", "crypto", "mesh", "ipam", "cni"},
    "cni": {"base"},
    "lab": {"base"},
}
FREE = ("bench", "tests")
LINES_MAX = 1000
C_LINES_MAX = 400

METADATA: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = METADATA["tool"]["setuptools"]["packages"]
ROOMS = sorted({package.partition(".")[0] for package in PACKAGES})


def python_files(folder: str) -> list[Path]:
    return sorted(
        path for path in (ROOT / folder).rglob("*.py") if "build" not in path.parts[-3:-1]
    )


def imported_rooms(path: Path, room: str) -> set[tuple[int, str]]:
    """(line, top-level name) of every import in a file, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {(node.lineno, alias.name.partition(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            top = room if node.level else (node.module or "").partition(".")[0]
            found.add((node.lineno, top))
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add((node.lineno, str(node.args[0].value).partition(".")[0]))
    return found


def wrong_arrows(room: str, files: list[Path]) -> list[str]:
    ours = {*ARROWS, *FREE}
    return [
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: {room} → {name}"
        for path in files
        for line, name in sorted(imported_rooms(path, room))
        if name in ours and name != room and name not in ARROWS[room]
    ]


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_import_arrows(room: str) -> None:
    assert wrong_arrows(room, python_files(room)) == []


def test_the_arrow_test_sees_arrows(tmp_path: Path) -> None:
    source = tmp_path / "sneaky.py"
    source.write_text(
        "def late():\n    import router.pipeline\n    from lab import plan\n"
        "    import importlib\n    importlib.import_module('capture.tap')\n"
    )
    assert [line.partition(": ")[2] for line in wrong_arrows("control", [source])] == [
        "control → router",
        "control → lab",
        "control → capture",
    ]


def test_every_room_is_known() -> None:
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert with_code == {*ARROWS, *FREE}
    assert set(ROOMS) == set(ARROWS)


@pytest.mark.parametrize("folder", [*sorted(ARROWS), *FREE])
def test_every_folder_with_python_is_a_package(folder: str) -> None:
    folders = {path.parent for path in python_files(folder)}
    lacking = [
        str(path.relative_to(ROOT)) for path in folders if not (path / "__init__.py").exists()
    ]
    assert lacking == []


def test_every_package_is_shipped() -> None:
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for room in ARROWS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found == set(PACKAGES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as setuptools makes it here, from a copy without build products."""
    copy = tmp_path_factory.mktemp("wheel") / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = copy.parent / "out"
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    out.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "WEFT_SANITIZE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(ROOMS)
    assert [name for name in names if re.fullmatch(r"native/_datapath\..*\.so", name)]
    assert "native/_datapath.pyi" in names
    assert "cni/stub/weft-cni" in names


def test_no_dependency_owns_a_name_of_ours() -> None:
    owners = importlib.metadata.packages_distributions()
    foreign = {
        name: sorted(set(owners.get(name, [])) - {"weftnet"}) for name in [*ROOMS, *FREE, "weft"]
    }
    assert {name: owner for name, owner in foreign.items() if owner} == {}


def test_version_has_one_source() -> None:
    assert importlib.metadata.version("weftnet") == METADATA["project"]["version"]


def declared_functions(text: str) -> dict[str, str]:
    """Name → prototype without spaces, comments, parameter names' spacing or array sizes."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*#.*?(?<!\\)$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\{[^{}]*\}", " ", text)
    found = {}
    for match in re.finditer(r"([\w\s*]+?)\b(wn_\w+)\s*\(([^()]*)\)\s*;", text):
        result, name, parameters = match.groups()
        # an array parameter is a pointer, whatever its size says
        parameters = re.sub(r"(\w+)\s*\[\w*\]", r"*\1", parameters)
        prototype = f"{result} {name}({parameters})"
        prototype = re.sub(r"\s+", " ", prototype)
        found[name] = re.sub(r"\s*([(),*])\s*", r"\1", prototype).strip()
    return found


def functions_in(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.h")):
        found |= declared_functions(path.read_text(encoding="utf-8"))
    return found


def test_cdef_repeats_the_headers() -> None:
    headers = functions_in(ROOT / "native" / "include")
    cdef = functions_in(ROOT / "native" / "cdef")
    assert len(cdef) > 20
    assert cdef == {name: headers.get(name, "missing in native/include") for name in cdef}


def test_the_cdef_test_sees_differences() -> None:
    one = declared_functions("int wn_a(const uint8_t mac[6], size_t len);")
    same = declared_functions("/* x */ int  wn_a(const uint8_t *mac,\n size_t len);")
    other = declared_functions("int wn_a(const uint8_t *mac, uint32_t len);")
    assert one == same != other


def test_typed_face_lists_every_function() -> None:
    tree = ast.parse((ROOT / "native" / "_datapath.pyi").read_text(encoding="utf-8"))
    (face,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Lib")
    arguments = {
        node.name: len(node.args.args) + len(node.args.posonlyargs) - 1
        for node in face.body
        if isinstance(node, ast.FunctionDef)
        and not any(ast.unparse(one) == "staticmethod" for one in node.decorator_list)
    } | {
        node.name: len(node.args.args) + len(node.args.posonlyargs)
        for node in face.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(one) == "staticmethod" for one in node.decorator_list)
    }
    expected = {}
    for name, prototype in functions_in(ROOT / "native" / "cdef").items():
        inside = prototype.partition("(")[2].rpartition(")")[0]
        expected[name] = 0 if inside in ("", "void") else inside.count(",") + 1
    assert arguments == expected


def test_typed_face_matches_the_compiled_module() -> None:
    from native import lib

    tree = ast.parse((ROOT / "native" / "_datapath.pyi").read_text(encoding="utf-8"))
    declared = {
        node.target.id
        for part in tree.body
        if isinstance(part, ast.ClassDef) and part.name == "_Lib"
        for node in part.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    } | set(functions_in(ROOT / "native" / "cdef"))
    assert set(dir(lib)) - declared == set()
    assert declared - set(dir(lib)) == set()


@pytest.mark.parametrize("folder", [*sorted(ARROWS), *FREE])
def test_no_python_file_is_too_long(folder: str) -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in python_files(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert too_long == {}


def test_no_c_file_is_too_long() -> None:
    too_long = {
        path.name: lines
        for folder in ("native/src", "cni/stub")
        for path in sorted((ROOT / folder).glob("*.[ch]"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > C_LINES_MAX
    }
    assert too_long == {}


def test_no_build_product_is_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in tracked if name.endswith((".so", ".o", ".pyc", "_datapath.c"))] == []
