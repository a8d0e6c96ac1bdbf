"""Read a bbolt file: the key-value store that Weave Net keeps its state in.

The file is a tree of pages; numbers are little-endian.

    page     id u64 | flags u16 | count u16 | overflow u32 | elements
    meta     header | magic u32 | version u32 | page size u32 | flags u32 | root bucket
             | freelist u64 | high-water page u64 | transaction u64
             | FNV-1a of all from the magic to here u64
    bucket   root page u64 | sequence u64 | if the root is 0: one page, inline
    branch   position u32 | key length u32 | page u64                       one element
    leaf     flags u32 | position u32 | key length u32 | value length u32   flag 1: a bucket

Positions count from the element itself. Pages 0 and 1 are metas; the valid one with the higher
transaction is what was committed last. A page may go on in the ``overflow`` pages behind it.

Nothing in the file is trusted: what points outside, or round in circles, is a :class:`BoltError`.

Source of truth: ipam specification 9.1. Ref: bbolt, page.go, bucket.go, db.go.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from base.errors import WeftError

MAGIC: Final = 0xED0CDAED
VERSION: Final = 2

_PAGE: Final = struct.Struct("<QHHI")
_META: Final = struct.Struct("<IIIIQQQQQ")
#: A page's header and the magic number.
BOLT_START_LEN: Final = _PAGE.size + 4
_CHECKSUM: Final = struct.Struct("<Q")
_BRANCH: Final = struct.Struct("<IIQ")
_LEAF: Final = struct.Struct("<IIII")
_BUCKET: Final = struct.Struct("<QQ")
_BRANCH_PAGE, _LEAF_PAGE = 1, 2
_IS_BUCKET: Final = 1
#: Where the second meta may be, if the first does not tell: at the size of a page.
_PAGE_SIZES: Final = tuple(1 << shift for shift in range(9, 17))
_DEPTH_MAX: Final = 32
_FNV_START, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


class BoltError(WeftError):
    """No such file, or a damaged one."""


class _Meta(NamedTuple):
    page_size: int
    root: int
    transaction: int


class _Page(NamedTuple):
    """``data`` begins with the page's header."""

    data: memoryview
    flags: int
    elements: int


def is_bolt(start: bytes) -> bool:
    """Whether a file that begins so is of this kind; ``BOLT_START_LEN`` bytes are enough."""
    return start[_PAGE.size : BOLT_START_LEN] == MAGIC.to_bytes(4, "little")


def read_bucket(file: bytes, name: bytes, keys: Collection[bytes]) -> dict[bytes, bytes]:
    """What a bucket of the root holds under ``keys``; one that is not there holds nothing.

    Raises:
        BoltError: the file is damaged.
    """
    reader = _Reader(memoryview(file))
    for flags, key, value in reader.leaves(reader.page(reader.meta.root)):
        if flags & _IS_BUCKET and key == name:
            return {
                bytes(key): bytes(value)
                for flags, key, value in reader.leaves(reader.bucket_page(value))
                if not flags & _IS_BUCKET and key in keys
            }
    return {}


class _Reader:
    """One file. ``meta`` is that of the last commit."""

    def __init__(self, file: memoryview) -> None:
        self._file = file
        self._visited: set[int] = set()
        first = self._meta(0)
        sizes = _PAGE_SIZES if first is None else (first.page_size,)
        found = [meta for meta in (first, *map(self._meta, sizes)) if meta is not None]
        if not found:
            raise BoltError("no valid meta page")
        self.meta = max(found, key=lambda meta: meta.transaction)

    def _meta(self, at: int) -> _Meta | None:
        whole = self._file[at + _PAGE.size : at + _PAGE.size + _META.size + _CHECKSUM.size]
        if len(whole) < _META.size + _CHECKSUM.size:
            return None
        magic, version, size, _, root, _, _, _, transaction = _META.unpack_from(whole)
        (checksum,) = _CHECKSUM.unpack_from(whole, _META.size)
        if (magic, version) != (MAGIC, VERSION) or size not in _PAGE_SIZES:
            return None
        if checksum != _fnv(whole[: _META.size]):
            return None
        return _Meta(size, root, transaction)

    def page(self, number: int) -> _Page:
        """A page and those that it goes on in, each of them once: so no walk outgrows the file."""
        size = self.meta.page_size
        start = number * size
        if start + size > len(self._file):
            raise BoltError(f"page {number} is beyond the end")
        _, _, _, overflow = _PAGE.unpack_from(self._file, start)
        if start + (1 + overflow) * size > len(self._file):
            raise BoltError(f"page {number} goes on beyond the end")
        numbers = range(number, number + 1 + overflow)
        if not self._visited.isdisjoint(numbers):
            raise BoltError(f"page {number} is reached twice")
        self._visited.update(numbers)
        return _page(self._file[start : start + (1 + overflow) * size])

    def bucket_page(self, bucket: memoryview) -> _Page:
        """The root page of a bucket, from its value."""
        if len(bucket) < _BUCKET.size:
            raise BoltError("short bucket")
        root, _ = _BUCKET.unpack_from(bucket)
        return self.page(root) if root else _page(bucket[_BUCKET.size :])

    def leaves(self, page: _Page, depth: int = 0) -> Iterator[tuple[int, memoryview, memoryview]]:
        """Flags, key and value of all below a page, in order."""
        if depth > _DEPTH_MAX:
            raise BoltError("tree too deep")
        if page.flags & _LEAF_PAGE:
            left = len(page.data)
            for at in _elements(page, _LEAF):
                flags, position, key_len, value_len = _LEAF.unpack_from(page.data, at)
                left -= key_len + value_len
                if left < 0:
                    raise BoltError("elements overlap")
                start = at + position
                key = _cut(page.data, start, key_len)
                yield flags, key, _cut(page.data, start + key_len, value_len)
        elif page.flags & _BRANCH_PAGE:
            for at in _elements(page, _BRANCH):
                _, _, number = _BRANCH.unpack_from(page.data, at)
                yield from self.leaves(self.page(number), depth + 1)
        else:
            raise BoltError(f"page of unknown kind {page.flags:#x}")


def _page(data: memoryview) -> _Page:
    if len(data) < _PAGE.size:
        raise BoltError("short page")
    _, flags, count, _ = _PAGE.unpack_from(data)
    return _Page(data, flags, count)


def _elements(page: _Page, element: struct.Struct) -> range:
    end = _PAGE.size + page.elements * element.size
    if end > len(page.data):
        raise BoltError("more elements than the page holds")
    return range(_PAGE.size, end, element.size)


def _cut(data: memoryview, start: int, length: int) -> memoryview:
    if start + length > len(data):
        raise BoltError("an element ends beyond its page")
    return data[start : start + length]


def _fnv(data: memoryview) -> int:
    value = _FNV_START
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return value
