"""Find the state of the Weave Net router that ran here, and go on with it.

The file is looked for where Weave Net's own ways of starting put it, and at ``--db-prefix``, where
somebody who keeps his command line has it in our file's place. Its ring, what it handed out, its
name and its peers become ours, unless we have such a state already. Then the file is renamed: a
router of Weave Net that were started on it later would claim what has been given away since.

    X ── rename ─▶ X.adopting ── import into our file ── rename ─▶ X.adopted

Whoever dies in between begins again with ``X.adopting``.

Source of truth: ipam specification 9.1, 9.2; node specification 1 (names of files).
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self

from base.errors import ConfigError
from base.gob import GobError
from base.log import kv
from base.names import PeerName
from control.adopt.bolt import BOLT_START_LEN, BoltError, is_bolt
from control.adopt.weave_state import WeaveState
from control.host.files import HostFiles
from control.ipam_store import IpamStore
from control.state import StateStore, state_path
from ipam.address import AddressError, Cidr
from ipam.ring import RingError, check_entries
from ipam.store import Change, Identity

log = logging.getLogger(__name__)

OPTION: Final = "--adopt-db"
#: By the DaemonSet, seen from inside and outside of its container; by hand.
PLACES: Final = (
    "/weavedb/weavedata.db",
    "/weavedb/weave-netdata.db",
    "/var/lib/weave/weavedata.db",
    "/var/lib/weave/weave-netdata.db",
)
#: The script ``weave`` keeps it in a volume without a name.
_VOLUMES: Final = "/var/lib/docker/volumes"
_IN_VOLUME: Final = "*/_data/weavedata.db"
#: What a file's name ends with once it is ours, and on the way there.
ADOPTED: Final = ".adopted"
_ADOPTING: Final = ".adopting"
_SIZE_MAX: Final = 256 << 20


@dataclass(slots=True, frozen=True)
class LeftBehind:
    """A state file of Weave Net and what it holds."""

    path: Path
    state: WeaveState

    @classmethod
    def read(cls, path: Path, *, stopped: bool) -> Self:
        """``stopped``: it is an error if a router has the file open.

        Raises:
            ConfigError: that, or the file cannot be read, or is damaged.
        """
        try:
            with path.open("rb") as file:
                if stopped:
                    _lock(file, path)
                data = file.read(_SIZE_MAX + 1)
            if len(data) > _SIZE_MAX:
                raise BoltError(f"more than {_SIZE_MAX >> 20} MB")
            state = WeaveState.decode(data)
            if state.ring is not None:
                check_entries(state.ring.universe, state.ring.entries)
                Cidr.parse_subnet(state.ring.universe.as_cidr_text())
        except OSError as err:
            raise ConfigError(f"{OPTION}: cannot read {path}: {err.strerror}") from err
        except (BoltError, GobError, RingError, AddressError) as err:
            raise ConfigError(
                f"{OPTION}: {path} is damaged ({err}); move it away to go on without what it holds"
            ) from err
        return cls(path, state)

    @property
    def name(self) -> PeerName | None:
        """The router's name, if it ever stored one."""
        return self.state.name

    def set_aside(self) -> LeftBehind:
        """Out of the way of whoever looks for it by its name."""
        if self.path.name.endswith(_ADOPTING):
            return self
        return self._renamed(self.path.with_name(self.path.name + _ADOPTING))

    def import_into(self, store: StateStore) -> None:
        """Make it ours and rename the file; left alone, with a warning, if ``store`` has a state.

        Raises:
            ConfigError: the disk does not take it: nothing is ours then.
        """
        ipam = IpamStore(store)
        if ipam.identity() is not None or store.name() not in (None, self.name):
            log.warning(
                "state of Weave Net left alone; this node has one", extra=kv(path=self.path)
            )
            return
        aside = self.set_aside()
        state = self.state
        if state.ring is not None:
            name = state.name or PeerName.from_int(state.ring.peer)
            ipam.commit(
                Change(
                    reset=True,
                    identity=Identity(name, state.ring.universe),
                    seeds=tuple(map(PeerName.from_int, state.ring.seeds)),
                    entries=state.ring.entries,
                    holdings=state.holdings,
                )
            )
        if not store.peers():
            store.set_peers(state.peers)
        if state.name is not None:
            store.set_name(state.name)
        done = aside._renamed(
            aside.path.with_name(aside.path.name.removesuffix(_ADOPTING) + ADOPTED)
        )
        log.warning(
            "state of Weave Net taken over",
            extra=kv(
                peer=state.name,
                ranges=0 if state.ring is None else len(state.ring.entries),
                addrs=len(state.holdings),
                renamed=done.path,
            ),
        )

    def _renamed(self, path: Path) -> LeftBehind:
        try:
            self.path.replace(path)
        except OSError as err:
            raise ConfigError(
                f"{OPTION}: cannot rename {self.path} to {path.name} ({err.strerror}); Weave Net "
                "must not start with it again: make it possible, or move the file away to go on "
                "without what it holds"
            ) from err
        return replace(self, path=path)


def find(
    files: HostFiles, prefix: str, given: str | None, *, stopped: bool = True
) -> LeftBehind | None:
    """What a router left here, None if nothing; ``given`` is the user's ``--adopt-db``.

    Raises:
        ConfigError: as :meth:`LeftBehind.read`; it is not there; there are several.
    """
    if given is not None:
        path = Path(files.path(given))
        if not _is_left(path):
            raise ConfigError(f"{OPTION}: {given} is no state file of Weave Net; name another")
        return LeftBehind.read(path, stopped=stopped)
    found = {_identity(path): path for path in _candidates(files, prefix) if _is_left(path)}
    if len(found) > 1:
        raise ConfigError(
            f"{OPTION}: Weave Net left several state files here: "
            f"{', '.join(map(str, found.values()))}; name one"
        )
    for path in found.values():
        return LeftBehind.read(path, stopped=stopped)
    return None


def open_state(prefix: str, left: LeftBehind | None) -> StateStore:
    """Our state file, with what ``left`` holds in it.

    Raises:
        ConfigError: as :meth:`StateStore.open` and :meth:`LeftBehind.import_into`.
    """
    if left is not None and left.path == state_path(prefix):
        left = left.set_aside()
    store = StateStore.open(prefix)
    try:
        if left is not None:
            left.import_into(store)
    except BaseException:
        store.close()
        raise
    return store


def _candidates(files: HostFiles, prefix: str) -> Iterator[Path]:
    places = [state_path(prefix), *(Path(files.path(place)) for place in PLACES)]
    places += sorted(Path(files.path(_VOLUMES)).glob(_IN_VOLUME))
    for place in places:
        yield place
        yield place.with_name(place.name + _ADOPTING)


def _is_left(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_bolt(file.read(BOLT_START_LEN))
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    """One file may be seen at several places."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{OPTION}: Weave Net is running, it has {path} open; stop it first"
        ) from None
