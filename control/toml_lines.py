"""On which line a value of a TOML document stands; tomllib does not say.

A light scan, good for messages only: it follows table headers and ``key =`` lines outside
multi-line strings. What it cannot find (inline tables) gets the line of what encloses it.
"""

from __future__ import annotations

import re
from typing import Final

_HEADER: Final = re.compile(r'\s*(\[\[?)\s*["\']?([A-Za-z0-9_-]+)["\']?\s*\]\]?')
_KEY: Final = re.compile(r'\s*["\']?([^\s"\'=.]+)["\']?\s*[=.]')
_MULTILINE: Final = re.compile(r'"""|\'\'\'')


class LineIndex:
    """Lines of a document, 1-based."""

    def __init__(self, text: str) -> None:
        self._found: dict[tuple[str | int, ...], int] = {}
        self._scan(text)

    def _scan(self, text: str) -> None:
        table: tuple[str | int, ...] = ()
        counts: dict[str, int] = {}
        inside: str | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            if inside is None:
                if header := _HEADER.match(line):
                    name = header[2]
                    table = (name,)
                    self._found.setdefault(table, number)
                    if header[1] == "[[":
                        index = counts.get(name, 0)
                        counts[name] = index + 1
                        table = (name, index)
                        self._found[table] = number
                elif key := _KEY.match(line):
                    self._found.setdefault((*table, key[1]), number)
            for mark in _MULTILINE.findall(line):
                if inside is None:
                    inside = mark
                elif inside == mark:
                    inside = None

    def at(self, *path: str | int) -> int:
        """Line of ``path`` as in ``at("peer", 2, "name")``, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            line = self._found.get(path[:length])
            if line is not None:
                return line
        return 1
