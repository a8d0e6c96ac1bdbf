"""The input as a source of choices, and the two ways in which a stream can arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from base.errors import WeftError


class Source:
    """Draws numbers and bytes from the input; zeros when it has run dry."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._pos

    def byte(self) -> int:
        self._pos += 1
        return self._data[self._pos - 1] if self._pos <= len(self._data) else 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._pos : self._pos + length]
        self._pos += len(taken)
        return taken

    def block(self) -> bytes:
        """Two bytes of length, and as many bytes as there are."""
        return self.take(self.byte() << 8 | self.byte())

    def rest(self) -> bytes:
        return self.take(self.left)


def arrivals(data: bytes) -> Iterator[list[bytes]]:
    """In one piece, then byte by byte."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]


def either_way(data: bytes, read: Callable[[list[bytes]], object]) -> None:
    """``read`` gives the same result, however the stream was cut."""
    whole, single = (read(pieces) for pieces in arrivals(data))
    assert whole == single, f"in one piece {whole!r}, byte by byte {single!r}"


def told(err: WeftError) -> str:
    """What became of bad input, in comparable form."""
    return f"{type(err).__name__}: {err}"
