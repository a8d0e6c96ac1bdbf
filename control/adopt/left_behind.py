"""The state file that a Weave Net router left on this host: where it is, and what it holds.

Containers can write where some of its places are, so only regular files are opened, a link in the
last part of a path is not followed, and what Docker's volumes hold is for the user to name.

Source of truth: ipam specification 9.1; node specification 1 (names of files).
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final, Self

from base.errors import ConfigError
from base.gob import GobError
from control.adopt.weave_state import WeaveState
from control.bolt import BOLT_START_LEN, BoltError, is_bolt
from control.host.files import HostFiles
from ipam.address import AddressError, Cidr
from ipam.ring import RingError, check_entries

OPTION: Final = "--adopt-db"
#: By hand; by the DaemonSet, seen from inside and outside of its container.
PLACES: Final = (
    "/weavedb/weavedata.db",
    "/weavedb/weave-netdata.db",
    "/var/lib/weave/weavedata.db",
    "/var/lib/weave/weave-netdata.db",
)
#: The script ``weave`` keeps it in a volume without a name.
_VOLUMES: Final = "/var/lib/docker/volumes"
_IN_VOLUME: Final = "*/_data/weavedata.db"
_ANONYMOUS: Final = re.compile("[0-9a-f]{64}")
_SIZE_MAX: Final = 256 << 20


class LeftBehind:
    """One such file, open; a context manager that closes it, and lets go of the lock."""

    def __init__(self, path: Path, file: BinaryIO, state: WeaveState) -> None:
        self.path = path
        self.state = state
        self._file = file

    @classmethod
    def open(cls, path: Path, *, stopped: bool = True) -> Self:
        """``stopped``: lock it, and refuse it if a router has it open.

        Raises:
            ConfigError: that, or the file cannot be read, or is damaged.
        """
        try:
            file = _open(path)
        except OSError as err:
            raise _unreadable(path, err) from err
        try:
            if stopped:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(path, file, _decode(file.read(_SIZE_MAX + 1)))
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"{OPTION}: Weave Net is running, it has {path} open; stop it first"
            ) from None
        except OSError as err:
            file.close()
            raise _unreadable(path, err) from err
        except (BoltError, GobError, RingError, AddressError) as err:
            file.close()
            raise ConfigError(
                f"{OPTION}: {path} is damaged ({err}); move it away, or do without: {OPTION} ''"
            ) from err

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find(files: HostFiles, given: str | None) -> Path | None:
    """Where the file is, None if there is none; ``given`` is the user's ``--adopt-db``.

    Raises:
        ConfigError: what was named is none; there are several, or one that may be somebody else's.
    """
    if given == "":
        return None
    if given is not None:
        path = Path(files.path(given))
        if not is_left(path):
            raise ConfigError(
                f"{OPTION}: {given} is no state file of Weave Net; name another, or '' for none"
            )
        return path
    found: list[Path] = []
    for path in (Path(files.path(place)) for place in PLACES):
        # one file may be seen at several places
        if is_left(path) and not any(path.samefile(other) for other in found):
            found.append(path)
    doubtful = [] if found else _in_volumes(files)
    if len(found) > 1 or doubtful:
        paths = ", ".join(map(str, found or doubtful))
        raise ConfigError(
            f"{OPTION}: this may be the state of Weave Net: {paths}; name the right one, or '' for "
            "none"
        )
    return found[0] if found else None


def is_left(path: Path) -> bool:
    """Whether there is such a file."""
    try:
        with _open(path) as file:
            return is_bolt(file.read(BOLT_START_LEN))
    except OSError:
        return False


def _in_volumes(files: HostFiles) -> list[Path]:
    paths = sorted(Path(files.path(_VOLUMES)).glob(_IN_VOLUME))
    return [path for path in paths if _ANONYMOUS.fullmatch(path.parts[-3]) and is_left(path)]


def _open(path: Path) -> BinaryIO:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "not a regular file")
    return os.fdopen(fd, "rb")


def _decode(data: bytes) -> WeaveState:
    if len(data) > _SIZE_MAX:
        raise BoltError(f"more than {_SIZE_MAX >> 20} MB")
    state = WeaveState.decode(data)
    if state.ring is not None:
        check_entries(state.ring.universe, state.ring.entries)
        Cidr.parse_subnet(state.ring.universe.as_cidr_text())
    return state


def _unreadable(path: Path, err: OSError) -> ConfigError:
    return ConfigError(f"{OPTION}: cannot read {path}: {err.strerror}")
