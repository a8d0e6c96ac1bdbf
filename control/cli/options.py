"""Options that several commands share, spelled as the original spells them where it has them.

Those of a node are in :mod:`control.cli.node_options`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_CONTROL_SOCKET: Final = Path("/run/weave/router.sock")
DEFAULT_HTTP_ADDR: Final = "/run/weave/weave.sock,127.0.0.1:6784"
#: As in control.state: a short command need not wait for its import; tested.
DEFAULT_PREFIX: Final = "/var/lib/weave/weft-"

IDENTITY: Final = "Peers and identity"
SECURITY: Final = "Encryption"
ADDRESSES: Final = "Addresses"
HOST: Final = "Host"
DATA_PATH: Final = "Data path"
SERVICE: Final = "Service"
#: In the order in which the help shows them.
PANELS: Final = (IDENTITY, SECURITY, ADDRESSES, HOST, DATA_PATH, SERVICE)


def _bridge_name(name: str) -> str:
    from base.errors import ConfigError
    from cni.names import check_ifname

    try:
        return check_ifname(name)
    except ConfigError as err:
        raise typer.BadParameter(str(err)) from err


DbPrefix = Annotated[
    str,
    typer.Option(
        "--db-prefix",
        metavar="PATH",
        help="Start of the state file's path; data.db is added.",
        rich_help_panel=SERVICE,
    ),
]
Bridge = Annotated[
    str,
    typer.Option(
        "--weave-bridge",
        metavar="NAME",
        help="Bridge that containers attach to; made if missing.",
        rich_help_panel=DATA_PATH,
        callback=_bridge_name,
    ),
]
HostRoot = Annotated[
    str,
    typer.Option(
        "--host-root",
        metavar="PATH",
        envvar="HOST_ROOT",
        show_default="none",
        help="In a container: where the host's root is mounted. Paths that are named are the "
        "host's, and so are machine-id, CNI plugins and their files.",
        rich_help_panel=HOST,
    ),
]
ControlSocket = Annotated[
    Path,
    typer.Option(
        "--control-socket",
        metavar="PATH",
        help="Unix socket between control and router.",
        rich_help_panel=SERVICE,
    ),
]
HttpAddr = Annotated[
    str,
    typer.Option(
        "--http-addr",
        metavar="PATH|IP:PORT,...",
        envvar="WEAVE_HTTP_ADDR",
        help='HTTP API: absolute paths of Unix sockets and IP:PORT; "" for none.',
        rich_help_panel=SERVICE,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]
