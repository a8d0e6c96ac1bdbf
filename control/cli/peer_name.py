"""``--print-peer-name``: the name that this host has or would get. Nothing is taken over by it."""

from __future__ import annotations

from functools import partial

from base.names import PeerName
from control.adopt import take_over
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
    """The name, remembered from now on if there is a state file to keep it in.

    Raises:
        ConfigError: an option or a file is wrong.
    """
    given = None if options.name is None else parse_name(options.name)
    fresh = random_name
    if options.adopt:
        files = HostFiles.of(options.host_root, options.proc_path)
        fresh = partial(weave_name, files)
        left = take_over.find(files, options.db_prefix, options.adopt_db, stopped=False)
        if left is not None and left.name is not None:
            fresh = partial(PeerName, left.name.octets)
        if left is not None and left.path == state_path(options.db_prefix):
            return str(choose_name(given, bridge_mac(options.bridge), None, fresh))
    try:
        with StateStore.open(options.db_prefix) as store:
            return str(settle_name(store, given, options.bridge, fresh))
    except StateInUseError:  # by a node that can be asked
        return str(report(options.http_addr)[1]["Router"]["Name"])
