"""Text that came from elsewhere, made fit for a terminal.

Nicknames and error texts are chosen by other routers: an escape sequence or a newline among them
must neither move the cursor nor forge a line of a status page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

#: What JSON leaves as it is and terminals may act on: DEL and C1, line and direction marks.
_UNSAFE_IN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Nil:
    """A list without elements that JSON shows as null, as the original's report does."""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())


NIL: Final = Nil()


class Absent:
    """A part of a report that is not there, as the original's nil pointer: false, without fields,
    null in JSON.
    """

    def __bool__(self) -> bool:
        return False


ABSENT: Final = Absent()


def printable(text: str) -> str:
    r"""``text`` with every character that does not print written as ``\x1b`` or ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def json_text(value: Any, indent: int = 0) -> str:
    """``value`` as JSON, on one line or indented; safe on a terminal, the same to a decoder."""
    body = msgspec.json.encode(value, enc_hook=_null)
    if indent:
        body = msgspec.json.format(body, indent=indent)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", body.decode())


def _null(value: Any) -> None:
    """What msgspec asks about values that it does not know. The error is its own convention for one
    that we do not know either.
    """
    if not isinstance(value, Nil | Absent):
        raise NotImplementedError(f"{type(value).__name__} has no JSON")


def _escaped(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 127 else _ascii(char)


def _ascii(char: str) -> str:
    return f"\\x{ord(char):02x}"
