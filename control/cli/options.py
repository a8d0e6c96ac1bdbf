"""Options that several commands share, spelled as the original spells them where it has them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Final

import typer

from base.log import FORMATS, LEVELS

DEFAULT_CONTROL_SOCKET: Final = Path("/run/weave/router.sock")
DEFAULT_HTTP_ADDR: Final = "/run/weave/weave.sock"
DEFAULT_STATIC: Final = Path("/etc/weft/peers.toml")
DEFAULT_PORT: Final = 6783

_DATA_PATH: Final = "Data path"
_IDENTITY: Final = "Peers and identity"
_SERVICE: Final = "Service"


def hostname() -> str:
    """This host's name, the default nickname."""
    return socket.gethostname()


def _level(value: str) -> str:
    if value not in LEVELS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(LEVELS)}")
    return value


def _format(value: str) -> str:
    if value not in FORMATS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(FORMATS)}")
    return value


Static = Annotated[
    Path | None,
    typer.Option(
        "--static",
        metavar="FILE",
        help="Peers file: the fixed table of this cluster's routers, the same on every host.",
        rich_help_panel=_IDENTITY,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="This host's peer name in the peers file, such as ce:01:00:00:00:01.",
        rich_help_panel=_IDENTITY,
    ),
]
Nickname = Annotated[
    str,
    typer.Option(
        "--nickname",
        metavar="NICK",
        default_factory=hostname,
        show_default="host name",
        help="This host's nickname in the peers file, used when no --name is given.",
        rich_help_panel=_IDENTITY,
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port", min=1, max=65534, help="UDP port of the data path.", rich_help_panel=_DATA_PATH
    ),
]
Host = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="IP",
        show_default="all",
        help="Local address to bind.",
        rich_help_panel=_DATA_PATH,
    ),
]
Bridge = Annotated[
    str,
    typer.Option(
        "--weave-bridge",
        metavar="NAME",
        help="Bridge that containers attach to; made if missing.",
        rich_help_panel=_DATA_PATH,
    ),
]
Mtu = Annotated[
    str | None,
    typer.Option(
        "--mtu",
        envvar="WEAVE_MTU",
        show_default="auto",
        metavar="BYTES|auto",
        help="MTU of the bridge; auto: what the underlay carries.",
        rich_help_panel=_DATA_PATH,
    ),
]
Capture = Annotated[
    str | None,
    typer.Option(
        "--capture",
        show_default="tap",
        metavar="tap|packet",
        help="How frames leave the bridge: a TAP port, or a packet socket.",
        rich_help_panel=_DATA_PATH,
    ),
]
Loops = Annotated[
    str | None,
    typer.Option(
        "--loops",
        show_default="auto",
        metavar="auto|one|two",
        help="Event loops: one for both directions (latency) or one each (throughput).",
        rich_help_panel=_DATA_PATH,
    ),
]
BufferMb = Annotated[
    str | None,
    typer.Option(
        "--bufsz",
        metavar="MB",
        show_default="8",
        help="Socket and capture buffers.",
        rich_help_panel=_DATA_PATH,
    ),
]
ControlSocket = Annotated[
    Path,
    typer.Option(
        "--control-socket",
        metavar="PATH",
        help="Unix socket between control and router.",
        rich_help_panel=_SERVICE,
    ),
]
HttpAddr = Annotated[
    str,
    typer.Option(
        "--http-addr",
        metavar="PATH|IP:PORT",
        envvar="WEAVE_HTTP_ADDR",
        help='HTTP API: absolute path of a Unix socket, or IP:PORT; "" for none.',
        rich_help_panel=_SERVICE,
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        metavar="|".join(LEVELS),
        callback=_level,
        help="Least important records to print.",
        rich_help_panel=_SERVICE,
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        metavar="|".join(FORMATS),
        callback=_format,
        help="key=value lines or JSON.",
        rich_help_panel=_SERVICE,
    ),
]
