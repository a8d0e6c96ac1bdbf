"""Files of Weave Net, left in folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.control.bolt_file import VALUES, bolt_file


def leave(path: Path, values: Mapping[bytes, bytes] = VALUES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bolt_file(values))
    return path


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
