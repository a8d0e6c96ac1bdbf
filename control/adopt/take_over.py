"""Go on with the state of the Weave Net router that ran here.

Its file is looked for where Weave Net's own ways of starting put it, and at ``--db-prefix``, where
somebody who keeps his command line has it in our file's place. Its ring, what it handed out, its
name and its peers become ours, unless this node has an allocation of its own; then nothing is even
looked for. Afterwards the file is renamed: a router of Weave Net that were started on it later
would claim what has been given away since.

    elsewhere        one transaction: all of it, and the file's path ─▶ rename ─▶ forget the path
    in our place     rename ─▶ our file is made ─▶ one transaction; undone if that fails

Whoever dies in between goes on from there at the next start. The file is locked, as Weave Net locks
it, from before it is read until it is renamed.

Source of truth: ipam specification 9.1, 9.2; node specification 1 (names of files).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from base.errors import ConfigError
from base.log import kv
from base.names import PeerName
from control.adopt.left_behind import OPTION, LeftBehind, find, is_left
from control.host.files import HostFiles
from control.ipam_store import IpamStore
from control.state import SET_SETTING, StateStore, put_name, put_peers, state_path
from ipam.address import Range
from ipam.store import Change, Identity

log = logging.getLogger(__name__)

_ADOPTED: Final = ".adopted"
#: Settings: the path of the file that is ours; the same while it is still to be renamed.
_TAKEN: Final = "adopted"
_TO_RENAME: Final = "adopting"


def aside_of(path: Path) -> Path:
    """What a file is called once it is ours."""
    return path.with_name(path.name + _ADOPTED)


@dataclass(slots=True, frozen=True)
class Adoption:
    """What the user wants of it.

    ``given``: the file, from ``--adopt-db``; None to look for it, "" to do without. ``name_for``:
    what this node is called if the given name is what it remembers. ``universe``: the range, None
    if there is none.
    """

    files: HostFiles
    given: str | None
    name_for: Callable[[PeerName | None], PeerName]
    universe: Range | None

    def check(self, left: LeftBehind) -> None:
        """What the router left has to be of this node, else nothing of it would be used.

        Raises:
            ConfigError: it is not.
        """
        state = left.state
        away = f"or do without: {OPTION} ''"
        name = state.name
        if name is not None and (ours := self.name_for(name)) != name:
            raise ConfigError(
                f"--name: {left.path} is of Weave Net's peer {name}, this node would be {ours}; "
                f"give --name {name}, {away}"
            )
        if state.ring is not None and self.universe not in (None, state.ring.universe):
            theirs = state.ring.universe.as_cidr_text()
            raise ConfigError(
                f"--ipalloc-range: {left.path} of Weave Net divides {theirs}; give that, {away}"
            )


def open_state(prefix: str, adoption: Adoption | None) -> StateStore:
    """Our state file, with what a router left in it if that is wanted.

    Raises:
        ConfigError: as :meth:`StateStore.open`; what was left cannot be read, is in use, is not of
            this node, or cannot be renamed. Nothing of it is ours then, and it is where it was.
    """
    path = state_path(prefix)
    if adoption is not None and adoption.given is None and is_left(path):
        return _open_in_place(prefix, adoption)
    with ExitStack() as undo:
        store = undo.enter_context(StateStore.open(prefix))
        _rename_what_is_ours(store)
        if adoption is not None and may_take_over(store):
            _take_over(store, adoption)
        undo.pop_all()
        return store


def may_take_over(store: StateStore) -> bool:
    """Whether this node has neither an allocation nor taken anything over yet.

    Raises:
        ConfigError: the state cannot be read.
    """
    return IpamStore(store).identity() is None and store.setting(_TAKEN) is None


def _take_over(store: StateStore, adoption: Adoption) -> None:
    aside = aside_of(store.path)
    if adoption.given is None and is_left(aside):  # put aside, and there it ended
        with LeftBehind.open(aside) as left:
            adoption.check(left)
            _import(store, left, renamed=aside)
    elif (found := find(adoption.files, adoption.given)) is not None:
        with LeftBehind.open(found) as left:
            adoption.check(left)
            _check_renaming(found)
            _import(store, left)
            _rename_what_is_ours(store)


def _open_in_place(prefix: str, adoption: Adoption) -> StateStore:
    path = state_path(prefix)
    aside = aside_of(path)
    with LeftBehind.open(path) as left, ExitStack() as undo:
        adoption.check(left)
        rename(path, aside)
        undo.callback(rename, aside, path)  # over ours, closed by then
        store = undo.enter_context(StateStore.open(prefix))
        _import(store, left, renamed=aside)
        undo.pop_all()
        return store


def _import(store: StateStore, left: LeftBehind, renamed: Path | None = None) -> None:
    """Make it ours, all or nothing. ``renamed`` None: that is still to be done, and noted."""
    state = left.state

    def beside(connection: sqlite3.Connection) -> None:
        if state.name is not None:
            put_name(connection, state.name)
        if peers:
            put_peers(connection, peers)
        for key in (_TAKEN,) if renamed is not None else (_TAKEN, _TO_RENAME):
            connection.execute(SET_SETTING, (key, str(left.path)))

    peers = () if store.peers() else state.peers
    change = Change()
    if state.ring is not None and state.name is not None:
        change = Change(
            reset=True,
            identity=Identity(state.name, state.ring.universe),
            seeds=tuple(map(PeerName.from_int, state.ring.seeds)),
            entries=state.ring.entries,
            holdings=state.holdings,
        )
    IpamStore(store).commit(change, beside)
    log.warning(
        "state of Weave Net taken over",
        extra=kv(
            peer=state.name,
            entries=len(change.entries),
            addrs=len(change.holdings),
            renamed=renamed or aside_of(left.path),
        ),
    )


def _rename_what_is_ours(store: StateStore) -> None:
    """The last step of a take-over, whenever that was."""
    if (noted := store.setting(_TO_RENAME)) is None:
        return
    path = Path(noted)
    if is_left(path):
        rename(path, aside_of(path))
    store.forget_setting(_TO_RENAME)


def _check_renaming(path: Path) -> None:
    if not os.access(path.parent, os.W_OK):
        raise _not_renamed(path, "its folder cannot be written")


def rename(path: Path, to: Path) -> None:
    """Durably; what had that name before is gone: it was an older state.

    Raises:
        ConfigError: it cannot be done.
    """
    try:
        path.replace(to)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as err:
        raise _not_renamed(path, err.strerror or str(err)) from err


def _not_renamed(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{OPTION}: cannot rename {path} ({reason}), and Weave Net must not start with it again; "
        "make it possible, or move the file away"
    )
