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

#: As in control.state, mesh.core and control.ipam_settings: a short command need not wait for their
#: imports; tested.
DEFAULT_PREFIX: Final = "/var/lib/weave/weft-"
CONN_LIMIT: Final = 200
DEFAULT_RANGE: Final = "10.32.0.0/12"
DEFAULT_PORT: Final = 6783
#: Of the mesh's protocol that the original had; only the last one is spoken here.
PROTOCOL_VERSIONS: Final = (1, 2)

_DATA_PATH: Final = "Data path"
_IDENTITY: Final = "Peers and identity"
_SECURITY: Final = "Encryption"
_SERVICE: Final = "Service"
_IPAM: Final = "Addresses"
_HOST: Final = "Host"


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


def _protocol(value: int | None) -> int | None:
    if value is not None and value not in PROTOCOL_VERSIONS:
        known = " and ".join(map(str, PROTOCOL_VERSIONS))
        raise typer.BadParameter(f"{value} is no version of the protocol; there are {known}")
    return value


def level_from_environment() -> str:
    """What the log level is when nobody says: WEAVE_DEBUG, set to anything, asks for all."""
    return "debug" if os.environ.get("WEAVE_DEBUG") else "info"


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
        envvar="WEAVE_PORT",
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
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Take the place of a Weave Net router that has stopped: its port on the bridge is "
        "replaced and its packet filter removed; bridge, containers and addresses stay.",
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
StatusAddr = Annotated[
    str,
    typer.Option(
        "--status-addr",
        metavar="PATH|IP:PORT,...",
        envvar="WEAVE_STATUS_ADDR",
        show_default="none",
        help="Serve status, report and metrics here too, nothing that changes anything.",
        rich_help_panel=_SERVICE,
    ),
]
MetricsAddr = Annotated[
    str,
    typer.Option(
        "--metrics-addr",
        metavar="PATH|IP:PORT,...",
        show_default="none",
        help="Serve metrics here too, and nothing else.",
        rich_help_panel=_SERVICE,
    ),
]
IpallocRange = Annotated[
    str | None,
    typer.Option(
        "--ipalloc-range",
        metavar="CIDR",
        show_default=DEFAULT_RANGE,
        help='Addresses that all routers divide among them, the same on every host; "": none.',
        rich_help_panel=_IPAM,
    ),
]
AllowOverlap = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-overlap",
        metavar="CIDR",
        show_default="none",
        help="A route of this host that the range may cover; may be given several times.",
        rich_help_panel=_IPAM,
    ),
]
IpallocDefaultSubnet = Annotated[
    str,
    typer.Option(
        "--ipalloc-default-subnet",
        metavar="CIDR",
        show_default="the whole range",
        help="Where a container's address comes from when it asks for no other subnet.",
        rich_help_panel=_IPAM,
    ),
]
IpallocInit = Annotated[
    str,
    typer.Option(
        "--ipalloc-init",
        metavar="consensus[=N]|seed=NAME,...|observer",
        show_default="consensus",
        help="How the range is first divided: by vote (of N routers, this one included), "
        "among those named, or by the others.",
        rich_help_panel=_IPAM,
    ),
]
NoMasqLocal = Annotated[
    bool,
    typer.Option(
        "--no-masq-local",
        help="Leave the source address of what comes to containers of this host as it is.",
        rich_help_panel=_HOST,
    ),
]
ExpectNpc = Annotated[
    bool,
    typer.Option(
        "--expect-npc",
        help="A network policy controller decides what containers may reach.",
        rich_help_panel=_HOST,
    ),
]
PodsToRouter = Annotated[
    bool,
    typer.Option(
        "--allow-pods-to-router",
        help="Let containers of this host reach the router's and the API's ports.",
        rich_help_panel=_HOST,
    ),
]
LegacyVethNames = Annotated[
    bool,
    typer.Option(
        "--legacy-veth-names",
        help="Name the host's ends of containers' links after the first 7 characters of their ids, "
        "as old scripts expect: such ids must differ there.",
        rich_help_panel=_HOST,
    ),
]
NoPacketFilter = Annotated[
    bool,
    typer.Option(
        "--no-packet-filter",
        help="Leave the host's packet filter alone: masquerade, forwarding and the protection of "
        "ports are then yours to set up.",
        rich_help_panel=_HOST,
    ),
]
DockerBridge = Annotated[
    str,
    typer.Option(
        "--docker-bridge",
        metavar="NAME",
        envvar="DOCKER_BRIDGE",
        show_default="none",
        help="Another bridge on this host, whose containers are kept from this router's ports.",
        rich_help_panel=_HOST,
    ),
]
MinProtocolVersion = Annotated[
    int | None,
    typer.Option(
        "--min-protocol-version",
        metavar="1|2",
        show_default="2",
        callback=_protocol,
        help="Oldest version of the mesh's protocol to speak; 2 is the only one spoken.",
        rich_help_panel=_DATA_PATH,
    ),
]
PrintPeerName = Annotated[
    bool,
    typer.Option(
        "--print-peer-name",
        help="Print the name that this host has or would get, and exit.",
        rich_help_panel=_IDENTITY,
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        metavar="|".join(LEVELS),
        callback=_level,
        default_factory=level_from_environment,
        show_default="info; with WEAVE_DEBUG set debug",
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
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]
