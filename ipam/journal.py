"""How to undo what was not committed yet.

Each step of a mutable part notes the call that undoes it. What was noted since the last seal
belongs to the open batch; a sealed batch is under way to the disk.
"""

from __future__ import annotations

from collections.abc import Callable


class Journal:
    """Two batches of undo calls."""

    __slots__ = ("_open", "_sealed")

    def __init__(self) -> None:
        self._open: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._sealed: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def note(self, undo: Callable[..., object], *arguments: object) -> None:
        """``undo(*arguments)`` takes back the step just made; it must not note anything itself."""
        self._open.append((undo, arguments))

    def seal(self) -> None:
        """The open batch goes to the disk; a new one begins."""
        self._sealed, self._open = self._open, []

    def commit(self) -> None:
        """The sealed batch is durable."""
        self._sealed = []

    def rollback(self) -> None:
        """Undo both batches, last step first."""
        for undo, arguments in reversed(self._sealed + self._open):
            undo(*arguments)
        self._sealed, self._open = [], []
