"""Options that several commands share, spelled as the original spells them where it has them."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Annotated, Final

import typer

from base.errors import ConfigError
from base.log import FORMATS, LEVELS

DEFAULT_CONTROL_SOCKET: Final = Path("/run/weave/router.sock")
DEFAULT_HTTP_ADDR: Final = "/run/weave/weave.sock,127.0.0.1:6784"
log = logging.getLogger(__name__)

#: As in control.state and mesh.core, whose imports a short command need not wait for; tested.
DEFAULT_PREFIX: Final = "/var/lib/weave/weft-"
CONN_LIMIT: Final = 200
DEFAULT_PORT: Final = 6783

_DATA_PATH: Final = "Data path"
_IDENTITY: Final = "Peers and identity"
_SECURITY: Final = "Encryption"
_SERVICE: Final = "Service"


def hostname() -> str:
    """This host's name, the default nickname."""
    return socket.gethostname()


def take_password(password: str | None, file: Path | None) -> None:
    """Move a password from the command line to the environment, where children find it.

    Raises:
        ConfigError: there are two.
    """
    if password is None:
        return
    if file is not None:
        raise ConfigError("--password: --password-file says it already; give one of them")
    os.environ["WEAVE_PASSWORD"] = password
    log.warning("--password shows in the process list; use --password-file")


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
        help="No mesh: a peers file, the fixed table of all routers, the same on every host.",
        rich_help_panel=_IDENTITY,
    ),
]
Peers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[HOST[:PORT]]...",
        show_default=False,
        help="Routers to connect to; one is enough, the others are found.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        show_default="the bridge's MAC, else remembered, else random",
        help="This host's peer name, such as ce:01:00:00:00:01; unique in the network.",
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
        help="How this host is called in listings; with a peers file also who it is.",
        rich_help_panel=_IDENTITY,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Connect to the peers of the last run; give none then.",
        rich_help_panel=_IDENTITY,
    ),
]
NoDiscovery = Annotated[
    bool,
    typer.Option(
        "--no-discovery",
        help="Connect only to the peers given, not to those that they know.",
        rich_help_panel=_IDENTITY,
    ),
]
ConnLimit = Annotated[
    int,
    typer.Option(
        "--conn-limit",
        min=0,
        metavar="N",
        help="Most connections to other routers; 0: no limit.",
        rich_help_panel=_IDENTITY,
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Encrypt: the file's one line is the password of all routers. "
        "Else WEAVE_PASSWORD or the systemd credential weave-password.",
        rich_help_panel=_SECURITY,
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        metavar="TEXT",
        help="For old scripts: shows in the process list; use --password-file.",
        rich_help_panel=_SECURITY,
    ),
]
TrustedSubnets = Annotated[
    str,
    typer.Option(
        "--trusted-subnets",
        metavar="CIDR,...",
        show_default="none",
        help="Send datagrams in clear to routers in these networks that trust us, too.",
        rich_help_panel=_SECURITY,
    ),
]
DbPrefix = Annotated[
    str,
    typer.Option(
        "--db-prefix",
        metavar="PATH",
        help="Start of the state file's path; data.db is added.",
        rich_help_panel=_SERVICE,
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port",
        min=1,
        max=65534,
        help="TCP port of the mesh and UDP port of the data path.",
        rich_help_panel=_DATA_PATH,
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
        metavar="PATH|IP:PORT,...",
        envvar="WEAVE_HTTP_ADDR",
        help='HTTP API: absolute paths of Unix sockets and IP:PORT; "" for none.',
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
