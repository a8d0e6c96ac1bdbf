"""Write bbolt files as Weave Net leaves them, with what a real one held; in any size and tree."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from base import gob
from ipam.store import Holding
from tests.golden import load

VECTOR = load("weave_state")
#: By key.
VALUES = {key.encode(): bytes.fromhex(value) for key, value in VECTOR["values"].items()}
#: Who holds 10.40.0.2.
CONTAINER = "0123abc" + "d" * 57

MAGIC = 0xED0CDAED
PAGE_SIZE = 4096
BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def page(number: int, kind: int, count: int, body: bytes, size: int = PAGE_SIZE) -> bytes:
    """With as many pages behind it as the body needs."""
    whole = 16 + len(body)
    pages = -(-whole // size)
    return struct.pack("<QHHI", number, kind, count, pages - 1) + body.ljust(
        pages * size - 16, b"\0"
    )


def meta(number: int, root: int, transaction: int, high: int, size: int = PAGE_SIZE) -> bytes:
    body = struct.pack("<IIIIQQQQQ", MAGIC, 2, size, 0, root, 0, 2, high, transaction)
    return page(number, META, 0, body + struct.pack("<Q", fnv(body)), size)


def leaf_body(items: Mapping[bytes, tuple[int, bytes]]) -> bytes:
    """Elements of a leaf: key to flags and value."""
    heads, data = b"", b""
    for place, (key, (flags, value)) in enumerate(sorted(items.items())):
        position = (len(items) - place) * 16 + len(data)
        heads += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return heads + data


def branch_body(children: Mapping[bytes, int]) -> bytes:
    """Elements of a branch: first key below to page number."""
    heads, data = b"", b""
    for place, (key, number) in enumerate(sorted(children.items())):
        position = (len(children) - place) * 16 + len(data)
        heads += struct.pack("<IIQ", position, len(key), number)
        data += key
    return heads + data


def bolt_file(
    values: Mapping[bytes, bytes],
    *,
    bucket: bytes = b"top",
    inline: bool = False,
    split: bool = False,
    size: int = PAGE_SIZE,
) -> bytes:
    """A file of one bucket. ``inline``: within the root's page; ``split``: a leaf for each key."""
    plain = {key: (0, value) for key, value in values.items()}
    pages: list[bytes] = []

    def add(kind: int, count: int, body: bytes) -> int:
        number = 4 + sum(len(each) for each in pages) // size
        pages.append(page(number, kind, count, body, size))
        return number

    if inline:
        body = struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, LEAF, len(plain), 0)
        body += leaf_body(plain)
    elif split:
        children = {key: add(LEAF, 1, leaf_body({key: item})) for key, item in plain.items()}
        body = struct.pack("<QQ", add(BRANCH, len(children), branch_body(children)), 0)
    else:
        body = struct.pack("<QQ", add(LEAF, len(plain), leaf_body(plain)), 0)
    root = page(3, LEAF, 1, leaf_body({bucket: (1, body)}), size)
    high = 4 + sum(map(len, pages)) // size
    metas = meta(0, 3, 8, high, size) + meta(1, 3, 7, high, size)
    return metas + page(2, FREELIST, 0, b"", size) + root + b"".join(pages)


_OWNED, _CONTAINER, _CIDRS, _CIDR = range(gob.FIRST_TYPE_ID, gob.FIRST_TYPE_ID + 4)


def owned(holdings: list[Holding]) -> bytes:
    """The map of what was handed out, as a gob stream."""
    by_ident: dict[str, list[Holding]] = {}
    for holding in holdings:
        by_ident.setdefault(holding.ident, []).append(holding)
    body = gob.encode_uint(len(by_ident))
    for ident, some in by_ident.items():
        cidrs = gob.encode_uint(len(some)) + b"".join(
            gob.encode_fields((gob.encode_uint(each.addr), gob.encode_int(each.prefix_len)))
            for each in some
        )
        flag = gob.encode_uint(1) if some[0].is_container else None
        body += gob.encode_string(ident) + gob.encode_fields((flag, cidrs))
    return b"".join(
        (
            gob.define_map(_OWNED, gob.STRING, _CONTAINER, "map[string]ownedData"),
            gob.define_struct(
                _CONTAINER, "ownedData", [("IsContainer", gob.BOOL), ("Cidrs", _CIDRS)]
            ),
            gob.define_slice(_CIDRS, _CIDR, "[]address.CIDR"),
            gob.define_struct(_CIDR, "CIDR", [("Addr", gob.UINT), ("PrefixLen", gob.INT)]),
            gob.message(_OWNED, b"\0" + body),
        )
    )
