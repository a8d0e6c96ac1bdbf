"""The subset of Go's gob that the wire needs: a decoder for any stream, encoders for our values.

A stream is a series of messages, each a length and then either a type definition (negative id) or
a value (positive id). Ids are the sender's own: the decoder learns them from each stream, the
encoder numbers from :data:`FIRST_TYPE_ID`. A slice's definition may name an element type that only
the following message defines, so types are resolved when a value is read, never before.

Decoded shapes: bool, int, float and complex numbers, ``str``, ``bytes``, ``list`` (slices and
arrays), ``dict`` (maps), and for structs a ``dict`` from field name to value that lacks the fields
the sender omitted because they are zero. Opaque types (GobEncoder and its like) are ``bytes``.
Interface values are refused; nothing on this wire uses them.

Hostile input costs no more than its own length: counts are checked against the bytes that are
left, nesting is limited. Whatever is wrong raises :class:`GobError`, or :class:`GobEndError` for
a clean end between two messages.

It stands in base since mesh and ipam share it. Source of truth: mesh specification 8, vectors
``gob_basics.json``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from base.errors import RemoteProtocolError

FIRST_TYPE_ID: Final = 65
BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE = range(1, 9)

#: Numbers up to here are one byte; any other is at most UINT_LEN_MAX bytes.
SHORT_MAX: Final = 0x7F
UINT_LEN_MAX: Final = 9

_USER_ID_MIN: Final = 64
_NESTING_MAX: Final = 32
_TYPES_MAX: Final = 256
_FLOAT: Final = struct.Struct("<d")


class GobError(RemoteProtocolError):
    """Bytes that are not a gob stream of the expected kind."""


class GobEndError(GobError):
    """The stream ended cleanly where a value was expected."""

    def __init__(self) -> None:
        super().__init__("EOF")


class _TruncatedError(GobError):
    def __init__(self) -> None:
        super().__init__("unexpected EOF")


# --- encoding ----------------------------------------------------------------------------------


def encode_uint(value: int) -> bytes:
    """One byte up to 127, else the negated byte count and the value, big-endian."""
    if value <= SHORT_MAX:
        return bytes((value,))
    length = (value.bit_length() + 7) // 8
    return bytes((256 - length,)) + value.to_bytes(length, "big")


def encode_int(value: int) -> bytes:
    """A signed number: the sign moves to bit 0."""
    return encode_uint(value << 1 if value >= 0 else (~value << 1) | 1)


def encode_bytes(data: bytes) -> bytes:
    """Length and bytes."""
    return encode_uint(len(data)) + data


def encode_string(text: str) -> bytes:
    """Length and UTF-8."""
    return encode_bytes(text.encode("utf-8", "replace"))


def message(type_id: int, body: bytes) -> bytes:
    """A definition (negative ``type_id``) or value message around its body."""
    return encode_bytes(encode_int(type_id) + body)


def uint_value(value: int) -> bytes:
    """A top-level unsigned number as a whole message."""
    return message(UINT, b"\0" + encode_uint(value))


def int_value(value: int) -> bytes:
    """A top-level signed number as a whole message."""
    return message(INT, b"\0" + encode_int(value))


def bool_value(value: bool) -> bytes:
    """A top-level boolean as a whole message."""
    return message(BOOL, b"\0" + encode_uint(value))


def string_value(text: str) -> bytes:
    """A top-level string as a whole message."""
    return message(STRING, b"\0" + encode_string(text))


def bytes_value(data: bytes) -> bytes:
    """A top-level byte slice as a whole message."""
    return message(BYTES, b"\0" + encode_bytes(data))


def define_struct(type_id: int, name: str, fields: Iterable[tuple[str, int]]) -> bytes:
    """Definition message of a struct with (field name, type id) in order."""
    listed = [
        b"\1" + encode_string(field) + b"\1" + encode_int(kind) + b"\0" for field, kind in fields
    ]
    body = (
        b"\3\1"
        + _common(type_id, name)
        + b"\1"
        + encode_uint(len(listed))
        + b"".join(listed)
        + b"\0\0"
    )
    return message(-type_id, body)


def define_slice(type_id: int, element: int, name: str = "") -> bytes:
    """Definition message of a slice."""
    body = b"\2\1" + _common(type_id, name) + b"\1" + encode_int(element) + b"\0\0"
    return message(-type_id, body)


def define_map(type_id: int, key: int, element: int, name: str = "") -> bytes:
    """Definition message of a map."""
    body = b"\4\1" + _common(type_id, name) + b"\1" + encode_int(key) + b"\1" + encode_int(element)
    return message(-type_id, body + b"\0\0")


def _common(type_id: int, name: str) -> bytes:
    """What every definition begins with; an empty name is left out as any zero value."""
    if not name:
        return b"\2" + encode_int(type_id) + b"\0"
    return b"\1" + encode_string(name) + b"\1" + encode_int(type_id) + b"\0"


def encode_fields(fields: Iterable[bytes | None]) -> bytes:
    """Struct body from encoded fields in order; None for a zero value, which is left out."""
    out = bytearray()
    previous = -1
    for index, field in enumerate(fields):
        if field is not None:
            out += encode_uint(index - previous)
            out += field
            previous = index
    out.append(0)
    return bytes(out)


def string_map_stream(pairs: dict[str, str]) -> bytes:
    """A whole stream that holds one map of strings: the feature map's form."""
    body = b"".join(encode_string(key) + encode_string(value) for key, value in pairs.items())
    value = message(FIRST_TYPE_ID, b"\0" + encode_uint(len(pairs)) + body)
    return define_map(FIRST_TYPE_ID, STRING, STRING) + value


# --- decoding ----------------------------------------------------------------------------------


class _Cursor:
    """A window on the stream; reads advance it and never pass its end."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data = data
        self.pos = pos
        self.end = end

    def uint(self) -> int:
        pos = self.pos
        if pos >= self.end:
            raise _TruncatedError
        first = self.data[pos]
        if first <= SHORT_MAX:
            self.pos = pos + 1
            return first
        length = 256 - first
        if length >= UINT_LEN_MAX:
            raise GobError("gob: encoded unsigned integer out of range")
        after = pos + 1 + length
        if after > self.end:
            raise _TruncatedError
        self.pos = after
        return int.from_bytes(self.data[pos + 1 : after], "big")

    def signed(self) -> int:
        value = self.uint()
        return ~(value >> 1) if value & 1 else value >> 1

    def take(self) -> bytes:
        length = self.uint()
        after = self.pos + length
        if after > self.end:
            raise _TruncatedError
        taken = self.data[self.pos : after]
        self.pos = after
        return taken

    def text(self) -> str:
        # always printable and encodable later on, whatever a peer sent
        return self.take().decode("utf-8", "replace")

    def count(self) -> int:
        """A number of items; items take at least a byte each, so more than the rest is a lie."""
        value = self.uint()
        if value > self.end - self.pos:
            raise _TruncatedError
        return value


@dataclass(slots=True, frozen=True)
class _Sequence:
    element: int
    length: int | None  # None: slice


@dataclass(slots=True, frozen=True)
class _Map:
    key: int
    element: int


@dataclass(slots=True, frozen=True)
class _Struct:
    fields: tuple[tuple[str, int], ...]


@dataclass(slots=True, frozen=True)
class _Opaque:
    pass


_Type = _Sequence | _Map | _Struct | _Opaque


@dataclass(slots=True, frozen=True)
class RawValue:
    """A value that was framed but not yet read; ``Decoder.resolve`` reads it."""

    type_id: int
    start: int
    end: int


class Decoder:
    """Reads one stream, value by value.

    ``rows`` names the fields of a struct of unsigned numbers: slices of such structs, which may be
    long, become lists of tuples in that order, zeros filled in, fields of other names left out.
    """

    def __init__(self, data: bytes, rows: tuple[str, ...] = ()) -> None:
        self._data = data
        self._pos = 0
        self._types: dict[int, _Type] = {}
        self._rows = rows

    @property
    def position(self) -> int:
        """Offset of the first byte not yet read."""
        return self._pos

    def next_raw(self) -> RawValue:
        """Frame the next value, learning the types defined before it.

        Raises:
            GobEndError: the stream ended between two messages.
            GobError: it is damaged.
        """
        while True:
            if self._pos == len(self._data):
                raise GobEndError
            head = _Cursor(self._data, self._pos, len(self._data))
            length = head.uint()
            if length > head.end - head.pos:
                raise _TruncatedError
            body = _Cursor(self._data, head.pos, head.pos + length)
            type_id = body.signed()
            self._pos = body.end
            if type_id > 0:
                return RawValue(type_id, body.pos, body.end)
            self._define(-type_id, body)

    def resolve(self, raw: RawValue) -> Any:
        """Read a framed value.

        Raises:
            GobError: it does not have the form its type promises.
        """
        cursor = _Cursor(self._data, raw.start, raw.end)
        if not isinstance(self._types.get(raw.type_id), _Struct) and cursor.uint() != 0:
            raise GobError("gob: decode: corrupted data: non-zero delta for singleton")
        value = self._value(raw.type_id, cursor, 0)
        if cursor.pos != cursor.end:
            raise GobError("gob: extra data after value")
        return value

    def field_names(self, raw: RawValue) -> tuple[str, ...]:
        """Names of the fields that a framed struct may have, sent or not; none for other values."""
        kind = self._types.get(raw.type_id)
        return tuple(name for name, _ in kind.fields) if isinstance(kind, _Struct) else ()

    def struct_body(self, raw: RawValue, fields: tuple[tuple[str, int], ...]) -> bytes | None:
        """Bytes of a framed struct whose type has exactly these fields; None for any other value.

        Equal bytes then mean equal values, whoever sent them.
        """
        kind = self._types.get(raw.type_id)
        if isinstance(kind, _Struct) and kind.fields == fields:
            return self._data[raw.start : raw.end]
        return None

    def next(self) -> Any:
        """Read the next value. Raises GobEndError or GobError as :meth:`next_raw` does."""
        return self.resolve(self.next_raw())

    def next_uint(self) -> int:
        """Next value, which must be a non-negative number."""
        value = self.next()
        if type(value) is not int or value < 0:
            raise GobError("gob: expected an unsigned integer")
        return value

    def next_string(self) -> str:
        """Next value, which must be a string."""
        value = self.next()
        if not isinstance(value, str):
            raise GobError("gob: expected a string")
        return value

    def next_bytes(self) -> bytes:
        """Next value, which must be a byte slice."""
        value = self.next()
        if not isinstance(value, bytes):
            raise GobError("gob: expected bytes")
        return value

    def _define(self, type_id: int, body: _Cursor) -> None:
        if type_id < _USER_ID_MIN or type_id in self._types:
            raise GobError("gob: duplicate type received")
        if len(self._types) >= _TYPES_MAX:
            raise GobError("gob: too many types")
        variant = body.uint()
        if not 1 <= variant <= 7:
            raise GobError("gob: bad type definition")
        fields = _definition_fields(variant, body)
        if body.uint() != 0:
            raise GobError("gob: bad type definition")
        if body.pos != body.end:
            raise GobError("gob: extra data in buffer")
        self._types[type_id] = fields

    def _value(self, type_id: int, cursor: _Cursor, depth: int) -> Any:
        if type_id == STRING:
            return cursor.text()
        if type_id == UINT:
            return cursor.uint()
        if type_id == BYTES:
            return cursor.take()
        if type_id == BOOL:
            return cursor.uint() != 0
        if type_id == INT:
            return cursor.signed()
        if type_id == FLOAT:
            return _float(cursor)
        if type_id == COMPLEX:
            return complex(_float(cursor), _float(cursor))
        if depth > _NESTING_MAX:
            raise GobError("gob: nested too deeply")
        return self._composite(self._types.get(type_id), cursor, depth + 1)

    def _composite(self, kind: _Type | None, cursor: _Cursor, depth: int) -> Any:
        if isinstance(kind, _Struct):
            return self._struct(kind, cursor, depth)
        if isinstance(kind, _Sequence):
            count = cursor.count()
            if kind.length is not None and count != kind.length:
                raise GobError("gob: length mismatch in array")
            element = self._types.get(kind.element)
            if self._rows and isinstance(element, _Struct) and _is_row(element, self._rows):
                return _read_rows(element, self._rows, cursor, count)
            return [self._value(kind.element, cursor, depth) for _ in range(count)]
        if isinstance(kind, _Map):
            count = cursor.count()
            found: dict[Any, Any] = {}
            for _ in range(count):
                key = _hashable(self._value(kind.key, cursor, depth))
                found[key] = self._value(kind.element, cursor, depth)
            return found
        if isinstance(kind, _Opaque):
            return cursor.take()
        raise GobError("gob: type not defined")

    def _struct(self, kind: _Struct, cursor: _Cursor, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        index = -1
        while delta := cursor.uint():
            index += delta
            if index >= len(kind.fields):
                raise GobError("gob: unknown field number")
            name, type_id = kind.fields[index]
            found[name] = self._value(type_id, cursor, depth)
        return found


def _is_row(kind: _Struct, names: tuple[str, ...]) -> bool:
    """Whether all fields are unsigned numbers, and one at least is asked for."""
    return all(type_id == UINT for _, type_id in kind.fields) and any(
        name in names for name, _ in kind.fields
    )


def _read_rows(
    kind: _Struct, names: tuple[str, ...], cursor: _Cursor, count: int
) -> list[tuple[int, ...]]:
    """``count`` structs at the cursor. One loop without calls: gossip carries thousands of them."""
    data, pos, end = cursor.data, cursor.pos, cursor.end
    places = [names.index(name) if name in names else len(names) for name, _ in kind.fields]
    blank = [0] * (len(names) + 1)
    last = len(places) - 1
    out: list[tuple[int, ...]] = []
    number = int.from_bytes
    try:
        for _ in range(count):
            row = blank.copy()
            index = -1
            while delta := data[pos]:
                index += delta
                if index > last:
                    raise GobError("gob: unknown field number")
                value = data[pos + 1]
                pos += 2
                if value > 0x7F:
                    after = pos + 256 - value
                    if after - pos > 8:
                        raise GobError("gob: encoded unsigned integer out of range")
                    value = number(data[pos:after], "big")
                    pos = after
                row[places[index]] = value
            pos += 1
            if pos > end:
                raise _TruncatedError
            row.pop()
            out.append(tuple(row))
    except IndexError:
        raise _TruncatedError from None
    cursor.pos = pos
    return out


def _hashable(key: Any) -> Any:
    """A map key; structs and arrays become tuples. A struct's fields come in its own order."""
    if isinstance(key, dict):
        return tuple((name, _hashable(value)) for name, value in key.items())
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key


def _float(cursor: _Cursor) -> float:
    (value,) = _FLOAT.unpack(cursor.uint().to_bytes(8, "big"))
    return float(value)


def _definition_fields(variant: int, body: _Cursor) -> _Type:
    """The variant's struct after its delta byte, end marker included."""
    numbers: list[int] = [0, 0]
    listed: tuple[tuple[str, int], ...] = ()
    index = -1
    while delta := body.uint():
        index += delta
        if index == 0:
            _common_type(body)
        elif variant == 3 and index == 1:
            listed = tuple(_field_type(body) for _ in range(body.count()))
        elif variant in (1, 2, 4) and index <= (1 if variant == 2 else 2):
            numbers[index - 1] = body.signed()
        else:
            raise GobError("gob: bad type definition")
    if variant == 3:
        return _Struct(listed)
    if variant == 4:
        return _Map(numbers[0], numbers[1])
    if variant == 2:
        return _Sequence(numbers[0], None)
    return _Sequence(numbers[0], numbers[1]) if variant == 1 else _Opaque()


def _common_type(body: _Cursor) -> tuple[str, int]:
    """Name and id of a definition or a struct field; either may be omitted."""
    name, number, index = "", 0, -1
    while delta := body.uint():
        index += delta
        if index == 0:
            name = body.text()
        elif index == 1:
            number = body.signed()
        else:
            raise GobError("gob: bad type definition")
    return name, number


_field_type = _common_type


def string_map(value: Any) -> dict[str, str]:
    """A decoded value as a map of strings. Raises GobError when it is something else."""
    if not isinstance(value, dict):
        raise GobError("gob: expected a map")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise GobError("gob: expected a map of strings")
    return value
