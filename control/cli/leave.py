"""Commands with which a host leaves: drain, reset.

Source of truth: node specification 7 and 10, ipam specification 9.4.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from base.errors import ConfigError
from control.cli import options as opt
from control.cli.cni import DEFAULT_CONFIG_DIR, ConfigDir, PluginDir
from control.cli.ipam import explained

app = typer.Typer()

#: For the news to reach others before we are gone, as the original waits.
GOSSIP_S: Final = 0.5
_HAND_OVER_TIMEOUT_S: Final = 20.0
#: Of the bridge itself: goes with the host, keeps nobody.
_EXPOSE: Final = "weave:expose"
#: On a node of Kubernetes, beside ours.
_WEAVE_NET_STATE: Final = "weave-netdata.db"

_DRAIN = """
Hand this host's addresses over to another router and give out no more; the node goes on otherwise.

Refused while containers have addresses here: detach them first, or give --force and their addresses
may be given out again elsewhere. A restart of the node ends it.

Examples:

  weft drain

  weft drain --force
"""

_RESET = """
Take this host out of the network for good: hand its addresses over, stop the node, remove its state
and everything it made on the host. Containers lose their connection.

With --force also when the node is not running: its addresses then stay with its old name, until
weft rmpeer is run elsewhere. Where there is no node at all nothing happens.

Examples:

  weft reset

  weft reset --force

  weft reset --kubernetes
"""

_Force = Annotated[bool, typer.Option("--force", help="Go on where that is dangerous; see above.")]


@app.command(help=_DRAIN)
def drain(
    force: _Force = False,
    as_json: opt.AsJson = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Hand over this host's addresses."""
    import json

    from control.cli.client import AnswerError, check, delete, get

    try:
        answer = get(http_addr, "/ip", "application/json")
        check(answer)
        owned: list[dict[str, Any]] = answer.json()["owned"] or []
        holders = [each["containerid"] for each in owned if each["containerid"] != _EXPOSE]
        if holders and not force:
            shown = ", ".join(holders[:3]) + (", ..." if len(holders) > 3 else "")
            raise ConfigError(
                f"drain: {len(holders)} still have addresses here ({shown}); detach them first, "
                "or give --force"
            )
        delete(http_addr, "/peer", timeout_s=_HAND_OVER_TIMEOUT_S)
    except AnswerError as err:
        raise explained("drain", err) from err
    if as_json:
        print(json.dumps({"Drained": True, "Abandoned": holders}))


@app.command(help=_RESET)
def reset(
    *,
    force: _Force = False,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Also what Kubernetes has of it: plugins, network list, Weave Net's state.",
        ),
    ] = False,
    plugin_dir: PluginDir = None,
    config_dir: ConfigDir = DEFAULT_CONFIG_DIR,
    db_prefix: opt.DbPrefix = opt.DEFAULT_PREFIX,
    bridge: opt.Bridge = "weave",
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Leave for good."""
    from cni import install
    from control.adopt.take_over import aside_of
    from control.cli.stop import stop
    from control.host.reset import clean
    from control.run_lock import RunLock
    from control.state import StateInUseError, remove_state, state_path

    handed_over = _hand_over(http_addr, force or _is_absent(db_prefix, bridge))
    if kubernetes:  # first of all: no more pods come
        into = install.Installed()
        install.uninstall(install.plugin_folder(plugin_dir), config_dir, into)
        for line in into.warnings:
            _say(f"weft: reset: {line}")
    if handed_over:
        time.sleep(GOSSIP_S)
    stop(control_socket, _say)
    RunLock(control_socket).forget()
    try:
        _detach_elsewhere(db_prefix, bridge)
        remove_state(db_prefix)
        folder = Path(db_prefix).parent
        install.remove_records(folder)
        # what a later --adopt would take for a state that was not taken over yet
        aside_of(state_path(db_prefix)).unlink(missing_ok=True)
        if kubernetes:
            left = folder / _WEAVE_NET_STATE
            for path in (left, aside_of(left)):
                path.unlink(missing_ok=True)
    except StateInUseError as err:
        done = "addresses were handed over; now " if handed_over else ""
        raise ConfigError(
            f"reset: {done}stop the node, which weft launch did not start, and run "
            "weft reset --force"
        ) from err
    clean(bridge)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _is_absent(db_prefix: str, bridge: str) -> bool:
    """Nothing of a node is on this host: then there is nothing to force."""
    from control.host.bridge import read

    return not Path(f"{db_prefix}data.db").exists() and read(bridge) is None


def _detach_elsewhere(db_prefix: str, bridge: str) -> None:
    """Containers on other bridges: their links are told from another node's by our records alone.

    Raises:
        StateInUseError: another process has the records.
        NetlinkError: the kernel refused.
    """
    from cni.attach import Attacher
    from control.attachment_store import AttachmentStore
    from control.state import StateInUseError, StateStore, state_path

    if not state_path(db_prefix).exists():
        return
    try:
        with StateStore.open(db_prefix) as state:
            records = AttachmentStore(state).load()
    except StateInUseError:
        raise
    except ConfigError:
        return  # what is damaged tells nothing
    with contextlib.closing(Attacher()) as attacher:
        for record in records:
            if record.bridge != bridge:
                name = record.host_ifname
                attacher.detach(record.container, record.ifname, host_name=name)


def _hand_over(http_addr: str, force: bool) -> bool:
    from control.cli.client import AnswerError, NodeUnreachableError, delete

    try:
        delete(http_addr, "/peer", timeout_s=_HAND_OVER_TIMEOUT_S)
    except NodeUnreachableError as err:
        if not force:
            raise ConfigError(
                f"reset: {err}; or reset --force, which hands no addresses over"
            ) from err
        return False
    except AnswerError as err:
        if not force:
            raise explained("reset", err) from err
        _say(f"weft: addresses were not handed over: {err}")
        return False
    return True
