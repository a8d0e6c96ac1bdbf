"""The vectors of the real program, read once."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"


@functools.cache
def load(name: str) -> Any:
    """Content of ``tests/vectors/<name>.json``."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
