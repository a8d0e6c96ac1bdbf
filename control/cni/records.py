"""Addresses given by CNI that are no attachment's, remembered on disk: a file for each interface.

IPAM is the truth about what is given. A record says what it cannot: to which network an address
belongs, and under which name IPAM knows it. Files are replaced whole, but not forced to disk: what
a power cut can take away died with its containers.

    <container id>@<interface>.ipam              weave-ipam behind another plugin
    weave-expose@<interface>.<network>.expose    an address of a bridge from another IPAM

Source of truth: cni specification 4 to 6.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from base.log import kv

_LEN_MAX: Final = 1 << 20

log = logging.getLogger(__name__)


class ExposeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An address that another IPAM gave a network's bridge, under this container's name."""

    container: str
    ifname: str
    network: str

    @property
    def key(self) -> str:
        """Name of its file, without the ending."""
        return f"{self.container}@{self.ifname}.{self.network}"


class IpamRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that Weave's IPAM gave; it knows them as ``ident``."""

    container: str
    ifname: str
    network: str
    ident: str
    addresses: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its file, without the ending."""
        return ipam_key(self.container, self.ifname)


def ipam_key(container: str, ifname: str) -> str:
    """The key of an interface's record."""
    return f"{container}@{ifname}"


_Record = TypeVar("_Record", ExposeRecord, IpamRecord)


class Records(Generic[_Record]):
    """Records of one kind. Methods may be called from any thread.

    Raises:
        OSError: the folder cannot be had or read.
    """

    def __init__(self, folder: Path, suffix: str, kind: type[_Record]) -> None:
        self._folder = folder
        self._suffix = suffix
        self._lock = threading.Lock()
        self._known: dict[str, _Record] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        decoder: msgspec.json.Decoder[_Record] = msgspec.json.Decoder(kind)
        for path in folder.glob(f"[!.]*{suffix}"):
            try:
                if path.stat().st_size > _LEN_MAX:
                    raise ValueError("too long")
                record = decoder.decode(path.read_bytes())
            except (ValueError, msgspec.DecodeError) as err:
                log.error("not a record, left alone", extra=kv(file=path.name, err=err))
                continue
            self._known[record.key] = record

    def get(self, key: str) -> _Record | None:
        """One record."""
        with self._lock:
            return self._known.get(key)

    def of_container(self, container: str) -> list[_Record]:
        """All of one container."""
        with self._lock:
            return [one for one in self._known.values() if one.container == container]

    def of_network(self, network: str) -> list[_Record]:
        """All of one network."""
        with self._lock:
            return [one for one in self._known.values() if one.network == network]

    def put(self, record: _Record) -> None:
        """Remember; replaces what was remembered of the same interface.

        Raises:
            OSError: the disk does not take it; nothing has changed.
        """
        path = self._path(record.key)
        fresh = f"{path}.new"
        body = msgspec.json.encode(record)
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, body) != len(body):
                    raise OSError(28, "no space left on device")
            finally:
                os.close(fd)
            os.replace(fresh, path)  # noqa: PTH105 - this is on the way of every ADD
        except OSError:
            Path(fresh).unlink(missing_ok=True)
            raise
        with self._lock:
            self._known[record.key] = record

    def remove(self, key: str) -> None:
        """Forget; what is not known is forgotten already.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            if self._known.pop(key, None) is None:
                return
        Path(self._path(key)).unlink(missing_ok=True)

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}{self._suffix}"


def expose_records(folder: Path) -> Records[ExposeRecord]:
    """Those of bridges."""
    return Records(folder, ".expose", ExposeRecord)


def ipam_records(folder: Path) -> Records[IpamRecord]:
    """Those of Weave's IPAM."""
    return Records(folder, ".ipam", IpamRecord)
