"""True and false as the original's language reads them: in its options, and in forms sent to it."""

from __future__ import annotations

from typing import Final

_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")


def parse_bool(text: str) -> bool | None:
    """What ``text`` says; None when it is neither."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None
