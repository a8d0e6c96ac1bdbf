"""What the operator should know until it is mended: the warnings of status and report.

Fixed ones hold for the whole run; those that happened stay for a while after the last time. Who is
refused for its password gets one line for all, so that a crowd of strangers hides nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: How long a warning that was not repeated is shown.
WARNING_S: Final = 600.0
WARNINGS_MAX: Final = 16
REFUSED_MAX: Final = 8


class Notices:
    """Bounded in number, whatever others do. ``fixed`` are shown for ever."""

    def __init__(self, fixed: Iterable[str] = ()) -> None:
        self._fixed = tuple(fixed)
        self._told: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._others_at: float | None = None

    def tell(self, text: str, now: float) -> None:
        """Show this until it is old."""
        self._told = _fresh(self._told, now)
        if text in self._told or len(self._told) < WARNINGS_MAX:
            self._told[text] = now

    def refused(self, address: str, now: float) -> bool:
        """Somebody there came without our password; whether that is news."""
        self._refused = _fresh(self._refused, now)
        news = address not in self._refused
        if news and len(self._refused) >= REFUSED_MAX:
            self._others_at = now
            return False
        self._refused[address] = now
        return news

    def texts(self, now: float) -> list[str]:
        """All that holds now, fixed ones first."""
        texts = [*self._fixed, *_fresh(self._told, now)]
        if refused := sorted(_fresh(self._refused, now)):
            others = self._others_at is not None and now - self._others_at < WARNING_S
            where = ", ".join(refused) + (" and others" if others else "")
            texts.append(f"refused for another password, or for none: {where}")
        return texts


def _fresh(said: dict[str, float], now: float) -> dict[str, float]:
    return {text: at for text, at in said.items() if now - at < WARNING_S}
