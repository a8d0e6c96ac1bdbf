"""Which addresses are in use on this host, and by whom: possibly a million.

An address has one holder, a holder any number of addresses. A Python dict of a million short texts
takes 150 MB; here rows are columns of arrays, texts lie in one buffer (container IDs, being hex, in
half their length), and two open hash tables of row numbers find them by holder and by address:
about 25 bytes a row and the text. Rows keep the order in which they came.

Every step is noted in the journal, and every touched address for the next change of the store.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from ipam.address import Cidr
from ipam.journal import Journal
from ipam.store import Holding

#: Longest text of a holder, in bytes.
IDENT_LEN_MAX: Final = 0xFFFF

_EMPTY, _TOMB = -1, -2
_SLOTS_MIN: Final = 64
_DEAD: Final = 0xFF
_PREFIX, _CONTAINER, _HEX = 0x3F, 0x40, 0x80


def _pack(ident: str) -> tuple[bytes, int]:
    """The text as bytes, and whether these are hex digits packed."""
    size = len(ident)
    if size >= 8 and not size & 1 and ident.isascii():
        try:
            packed = bytes.fromhex(ident)
        except ValueError:
            pass
        else:
            if packed.hex() == ident:
                return packed, _HEX
    return ident.encode("utf-8", "surrogatepass"), 0


def _mix(addr: int) -> int:
    """Addresses come in sequence: unmixed they would be one cluster, to be walked to its end."""
    return addr * 0x9E3779B1 >> 12


class Holdings:
    """See the module."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: Addresses touched since somebody emptied it.
        self.touched: set[int] = set()
        self._count = 0
        self._addrs = array("I")
        self._flags = bytearray()
        self._offsets = array("Q")
        self._texts = bytearray()
        self._by_ident = array("i", [_EMPTY]) * _SLOTS_MIN
        self._by_addr = array("i", [_EMPTY]) * _SLOTS_MIN
        self._mask = _SLOTS_MIN - 1
        self._used = 0  # slots that are not empty, in either table

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Holding]:
        return (self._row(row) for row in range(len(self._addrs)) if self._flags[row] != _DEAD)

    # --- finding ---------------------------------------------------------------------------------

    def at(self, addr: int) -> Holding | None:
        """Who holds ``addr``."""
        slot = self._slot_of_addr(addr)
        return None if slot is None else self._row(self._by_addr[slot])

    def of(self, ident: str) -> list[Holding]:
        """What ``ident`` holds, oldest first."""
        rows = self._rows_of(ident)
        if len(rows) > 1:
            rows.sort()
        return [self._row(row) for row in rows]

    def by_ident(self) -> Iterator[tuple[str, list[Holding]]]:
        """All, grouped; oldest first."""
        several: set[str] = set()
        for holding in self:
            if holding.ident in several:
                continue
            held = self.of(holding.ident)
            if len(held) > 1:
                several.add(holding.ident)
            yield holding.ident, held

    def _rows_of(self, ident: str) -> list[int]:
        data, packed = _pack(ident)
        size, mask, table = len(data), self._mask, self._by_ident
        slot = hash(data) & mask
        rows = []
        while (row := table[slot]) != _EMPTY:
            if row >= 0 and self._flags[row] & _HEX == packed:
                start = self._offsets[row]
                if (
                    self._texts[start] | self._texts[start + 1] << 8 == size
                    and self._texts[start + 2 : start + 2 + size] == data
                ):
                    rows.append(row)
            slot = (slot + 1) & mask
        return rows

    def _slot_of_addr(self, addr: int) -> int | None:
        slot, mask, table = _mix(addr) & self._mask, self._mask, self._by_addr
        while (row := table[slot]) != _EMPTY:
            if row >= 0 and self._addrs[row] == addr:
                return slot
            slot = (slot + 1) & mask
        return None

    def _text(self, row: int) -> bytes:
        start = self._offsets[row]
        size = self._texts[start] | self._texts[start + 1] << 8
        return bytes(self._texts[start + 2 : start + 2 + size])

    def _row(self, row: int) -> Holding:
        flags, text = self._flags[row], self._text(row)
        ident = text.hex() if flags & _HEX else text.decode("utf-8", "surrogatepass")
        return Holding(self._addrs[row], flags & _PREFIX, ident, bool(flags & _CONTAINER))

    # --- changing --------------------------------------------------------------------------------

    def add(self, holding: Holding) -> None:
        """Note a holder of an address that has none. The text must not be too long."""
        self._journal.note(self._raw_remove, holding.addr)
        self.touched.add(holding.addr)
        self._raw_add(holding)

    def remove(self, addr: int) -> Holding | None:
        """Forget the holder of an address: who it was."""
        found = self.at(addr)
        if found is not None:
            self._journal.note(self._raw_add, found)
            self.touched.add(addr)
            self._raw_remove(addr)
        return found

    def _raw_add(self, holding: Holding) -> None:
        if 3 * self._used >= 2 * self._mask:
            self._rebuild()
        data, packed = _pack(holding.ident)
        row = len(self._addrs)
        self._addrs.append(holding.addr)
        self._flags.append(
            holding.prefix_len | packed | (_CONTAINER if holding.is_container else 0)
        )
        self._offsets.append(len(self._texts))
        self._texts += len(data).to_bytes(2, "little")
        self._texts += data
        self._insert(row, hash(data))
        self._count += 1

    def _insert(self, row: int, ident_hash: int) -> None:
        mask = self._mask
        for table, start in (
            (self._by_ident, ident_hash & mask),
            (self._by_addr, _mix(self._addrs[row]) & mask),
        ):
            slot = start
            while table[slot] != _EMPTY:
                slot = (slot + 1) & mask
            table[slot] = row
        self._used += 1

    def _raw_remove(self, addr: int) -> None:
        slot = self._slot_of_addr(addr)
        if slot is None:
            return
        row = self._by_addr[slot]
        self._by_addr[slot] = _TOMB
        slot = hash(self._text(row)) & self._mask
        while self._by_ident[slot] != row:
            slot = (slot + 1) & self._mask
        self._by_ident[slot] = _TOMB
        self._flags[row] = _DEAD
        self._count -= 1

    def _rebuild(self) -> None:
        """Tables with room and without tombs; dead rows go when they are the half of all."""
        if 2 * self._count < len(self._addrs):
            self._compact()
        size = _SLOTS_MIN
        while size < 3 * self._count:
            size *= 2
        self._mask, self._used = size - 1, 0
        self._by_ident = array("i", [_EMPTY]) * size
        self._by_addr = array("i", [_EMPTY]) * size
        for row in range(len(self._addrs)):
            if self._flags[row] != _DEAD:
                self._insert(row, hash(self._text(row)))

    def _compact(self) -> None:
        kept = [row for row in range(len(self._addrs)) if self._flags[row] != _DEAD]
        texts, offsets = bytearray(), array("Q")
        for row in kept:
            data = self._text(row)
            offsets.append(len(texts))
            texts += len(data).to_bytes(2, "little")
            texts += data
        self._addrs = array("I", (self._addrs[row] for row in kept))
        self._flags = bytearray(self._flags[row] for row in kept)
        self._texts, self._offsets = texts, offsets


def cidr_of(holding: Holding) -> Cidr:
    """The address as the holder sees it."""
    return Cidr(holding.addr, holding.prefix_len)
