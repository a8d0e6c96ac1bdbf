"""``--print-peer-name``: the name that this host has or would get. Nothing is taken over by it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from base.names import PeerName
from control.adopt.left_behind import LeftBehind, find, is_left
from control.adopt.take_over import may_take_over
from control.cli.client import report
from control.cli.node_options import ControlOptions
from control.host.files import HostFiles
from control.identity import (
    bridge_mac,
    choose_name,
    parse_name,
    random_name,
    settle_name,
    weave_name,
)
from control.state import StateInUseError, StateStore, state_path


def peer_name(options: ControlOptions) -> str:
    """The name; remembered from now on, unless what a Weave Net router left would decide.

    Raises:
        ConfigError: an option or a file is wrong.
    """
    given = None if options.name is None else parse_name(options.name)
    if not options.adopt:
        return _settled(options, given)
    files = HostFiles.of(options.host_root, options.proc_path)
    left = _left(options, files)
    if left is None:
        return _settled(options, given, files)
    fresh = partial(weave_name, files)
    return str(choose_name(given, bridge_mac(options.bridge), _name_in(left), fresh))


def _left(options: ControlOptions, files: HostFiles) -> Path | None:
    path = state_path(options.db_prefix)
    if options.adopt_db is None and is_left(path):
        return path
    try:
        with StateStore.open(options.db_prefix) as store:
            if not may_take_over(store):
                return None
    except StateInUseError:
        return None
    return find(files, options.adopt_db)


def _name_in(left: Path) -> PeerName | None:
    with LeftBehind.open(left, stopped=False) as opened:
        return opened.state.name


def _settled(
    options: ControlOptions, given: PeerName | None, adopted: HostFiles | None = None
) -> str:
    fresh = random_name if adopted is None else partial(weave_name, adopted)
    try:
        with StateStore.open(options.db_prefix) as store:
            return str(settle_name(store, given, options.bridge, fresh))
    except StateInUseError:  # by a node that can be asked
        return str(report(options.http_addr)[1]["Router"]["Name"])
