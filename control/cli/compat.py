"""Words of the original's command that old scripts say and that mean little or nothing here.

``help``; ``setup``, ``docker-bridge-ip`` and ``dns-args``, which still answer; and what the
original removed itself or had for Docker, which ends with a hint and exit code 1. None but ``help``
is shown. Source of truth: node specification 10.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Final

import typer

from base.errors import ConfigError
from control.cli.cni import setup_cni

_ATTACH: Final = (
    "start the container by its runtime and put it on the network by weft attach or CNI"
)
_NO_PROXY: Final = f"there is no Docker proxy; {_ATTACH}"
_NO_PLUGIN: Final = f"there is no Docker plugin; {_ATTACH}"
_NO_NAMES: Final = "names are not served yet"

#: What is left of each is its hint.
REMOVED: Final[dict[str, str]] = {
    **dict.fromkeys(("run", "start", "restart"), f"removed as of Weave Net 2.0; {_ATTACH}"),
    "launch-router": "removed as of Weave Net 2.0; use weft launch",
    "stop-router": "removed as of Weave Net 2.0; use weft stop",
    **dict.fromkeys(("launch-proxy", "stop-proxy"), f"removed as of Weave Net 2.0; {_NO_PROXY}"),
    **dict.fromkeys(("launch-plugin", "stop-plugin"), f"removed as of Weave Net 2.0; {_NO_PLUGIN}"),
    **dict.fromkeys(("env", "config"), _NO_PROXY),
    **dict.fromkeys(("dns-add", "dns-remove", "dns-lookup"), _NO_NAMES),
}
NOT_ROOT: Final = "weft must be run as 'root' when run locally"
_ANYTHING: Final = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer()
app.command("setup", hidden=True)(setup_cni)


def check_local() -> None:
    """``--local``: everything runs here anyway; who is not root is told at once.

    Raises:
        typer.Exit: not root.
    """
    if os.geteuid() != 0:
        print(NOT_ROOT, file=sys.stderr)
        raise typer.Exit(1)


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[str, typer.Argument(metavar="[COMMAND]", show_default=False)] = "",
) -> None:
    """Show how weft, or one of its commands, is used."""
    shown = context.find_root()
    if command:
        found = shown.command.get_command(shown, command)  # type: ignore[attr-defined]
        if found is None:
            raise ConfigError(f"help: no command {command!r}; see 'weft help'")
        shown = type(shown)(found, info_name=command, parent=shown)
    with contextlib.redirect_stdout(sys.stderr):  # where the original says it
        typer.echo(shown.get_help())


@app.command("dns-args", hidden=True)
def dns_args() -> None:
    """Options for a container that is to use weaveDNS: none while names are not served."""
    print()


@app.command("docker-bridge-ip", hidden=True)
def docker_bridge_ip(
    bridge: Annotated[str, typer.Option("--docker-bridge", envvar="DOCKER_BRIDGE")] = "docker0",
) -> None:
    """Print the address of Docker's bridge."""
    from control.host.bridge import read

    state = read(bridge)
    if state is None or not state.addresses:
        raise ConfigError(f"docker-bridge-ip: there is no bridge {bridge} with an IPv4 address")
    print(state.addresses[0].ip)


def _removed(context: typer.Context) -> None:
    name = str(context.info_name)
    raise ConfigError(f"{name}: {REMOVED[name]}")


for _name in REMOVED:
    app.command(_name, hidden=True, context_settings=_ANYTHING, add_help_option=False)(_removed)
