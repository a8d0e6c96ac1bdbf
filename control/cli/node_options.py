"""The options of a node: of ``weft launch``, ``weft control`` and ``weft router``.

Each option stands here once; :mod:`control.cli.record` makes the commands' parameters of it, and
the command lines with which launch starts the two others. What the router does with its text is in
its own settings. To add an option: a field here, and its use.

Source of truth: node specification 8.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from base.log import FORMATS, LEVELS
from control.cli import options as opt

#: As in mesh.core and control.ipam_settings, so that help need not wait for their imports; tested.
DEFAULT_PORT: Final = 6783
CONN_LIMIT: Final = 200
DEFAULT_RANGE: Final = "10.32.0.0/12"
PROC: Final = "/proc"


def level_from_environment() -> str:
    """What the log level is when nobody says: WEAVE_DEBUG, set to anything, asks for all."""
    return "debug" if os.environ.get("WEAVE_DEBUG") else "info"


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return check


_identity = partial(typer.Option, rich_help_panel=opt.IDENTITY)
_security = partial(typer.Option, rich_help_panel=opt.SECURITY)
_addresses = partial(typer.Option, rich_help_panel=opt.ADDRESSES)
_host = partial(typer.Option, rich_help_panel=opt.HOST)
_data_path = partial(typer.Option, rich_help_panel=opt.DATA_PATH)
_service = partial(typer.Option, rich_help_panel=opt.SERVICE)


# no slots: a class of two slotted ones cannot be made
@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """What both processes are told."""

    bridge: opt.Bridge = "weave"
    host: Annotated[
        str,
        _data_path("--host", metavar="IP", show_default="all", help="Local address to bind."),
    ] = ""
    port: Annotated[
        int,
        _data_path(
            "--port",
            envvar="WEAVE_PORT",
            min=1,
            max=65534,
            help="TCP port of the mesh and UDP port of the data path.",
        ),
    ] = DEFAULT_PORT
    adopt: Annotated[
        bool,
        _data_path(
            "--adopt",
            help="Take the place of a Weave Net router that has stopped: its port on the bridge is "
            "replaced and its packet filter removed; bridge, containers and addresses stay. "
            "Its state file is taken over, too. Without both the name is that which Weave makes of "
            "this host's machine-id.",
        ),
    ] = False
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET
    log_level: Annotated[
        str,
        _service(
            "--log-level",
            metavar="|".join(LEVELS),
            callback=_one_of(LEVELS),
            default_factory=level_from_environment,
            show_default="info; with WEAVE_DEBUG set debug",
            help="Least important records to print.",
        ),
    ]
    log_format: Annotated[
        str,
        _service(
            "--log-format",
            metavar="|".join(FORMATS),
            callback=_one_of(FORMATS),
            help="key=value lines or JSON.",
        ),
    ] = "kv"


@dataclass(frozen=True, kw_only=True)
class RouterOptions(NodeOptions):
    """What the router is told, as text: it has defaults and checks of its own."""

    mtu: Annotated[
        str | None,
        _data_path(
            "--mtu",
            envvar="WEAVE_MTU",
            show_default="auto",
            metavar="BYTES|auto",
            help="MTU of the bridge; auto: what the underlay carries.",
        ),
    ] = None
    capture: Annotated[
        str | None,
        _data_path(
            "--capture",
            show_default="tap",
            metavar="tap|packet",
            help="How frames leave the bridge: a TAP port, or a packet socket.",
        ),
    ] = None
    loops: Annotated[
        str | None,
        _data_path(
            "--loops",
            show_default="auto",
            metavar="auto|one|two",
            help="Event loops: one for both directions (latency) or one each (throughput).",
        ),
    ] = None
    bufsz: Annotated[
        str | None,
        _data_path("--bufsz", metavar="MB", show_default="8", help="Socket and capture buffers."),
    ] = None
    pkt_debug: Annotated[
        bool,
        _data_path(
            "--pkt-debug",
            help="Log each frame with its peer, at most 500 a second; slows the data path down.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ControlOptions(NodeOptions):
    """What control is told. With ``static``, a peers file, most of it does not apply."""

    peers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST[:PORT]]...",
            show_default=False,
            help="Routers to connect to; one is enough, the others are found.",
        ),
    ] = None
    static: Annotated[
        Path | None,
        _identity(
            "--static",
            metavar="FILE",
            help="No mesh: a peers file, the fixed table of all routers, the same on every host.",
        ),
    ] = None
    name: Annotated[
        str | None,
        _identity(
            "--name",
            metavar="NAME",
            show_default="the bridge's MAC, else remembered, else random; see --adopt",
            help="This host's peer name, such as ce:01:00:00:00:01; unique in the network.",
        ),
    ] = None
    nickname: Annotated[
        str,
        _identity(
            "--nickname",
            metavar="NICK",
            default_factory=socket.gethostname,
            show_default="host name",
            help="How this host is called in listings; with a peers file also who it is.",
        ),
    ]
    resume: Annotated[
        bool,
        _identity("--resume", help="Connect to the peers of the last run; give none then."),
    ] = False
    no_discovery: Annotated[
        bool,
        _identity(
            "--no-discovery",
            help="Connect only to the peers given, not to those that they know.",
        ),
    ] = False
    conn_limit: Annotated[
        int,
        _identity(
            "--conn-limit",
            min=0,
            metavar="N",
            help="Most connections to other routers; 0: no limit.",
        ),
    ] = CONN_LIMIT
    adopt_db: Annotated[
        str | None,
        _identity(
            "--adopt-db",
            metavar="FILE",
            show_default="where Weave Net keeps it",
            help="With --adopt: the state file of the Weave Net router, weavedata.db or "
            "weave-netdata.db.",
        ),
    ] = None
    version: Annotated[bool, _service("--version", help="Print the version and exit.")] = False
    print_peer_name: Annotated[
        bool,
        _identity(
            "--print-peer-name",
            help="Print the name that this host has or would get, and exit.",
        ),
    ] = False
    password_file: Annotated[
        Path | None,
        _security(
            "--password-file",
            metavar="FILE",
            help="Encrypt: the file's one line is the password of all routers. "
            "Else WEAVE_PASSWORD or the systemd credential weave-password.",
        ),
    ] = None
    trusted_subnets: Annotated[
        str,
        _security(
            "--trusted-subnets",
            metavar="CIDR,...",
            show_default="none",
            help="Send datagrams in clear to routers in these networks that trust us, too.",
        ),
    ] = ""
    min_protocol_version: Annotated[
        int | None,
        _data_path(
            "--min-protocol-version",
            metavar="1|2",
            min=1,
            max=2,
            show_default="1; with a password 2",
            help="Oldest version of the mesh's protocol to speak; Weave has 2 since its 1.2. "
            "In version 1 introductions are not encrypted.",
        ),
    ] = None
    ipalloc_range: Annotated[
        str | None,
        _addresses(
            "--ipalloc-range",
            metavar="CIDR",
            show_default=DEFAULT_RANGE,
            help='Addresses that all routers divide among them, the same on every host; "": none.',
        ),
    ] = None
    allow_overlap: Annotated[
        list[str] | None,
        _addresses(
            "--allow-overlap",
            metavar="CIDR",
            show_default="none",
            help="A route of this host that the range may cover; may be given several times.",
        ),
    ] = None
    ipalloc_default_subnet: Annotated[
        str,
        _addresses(
            "--ipalloc-default-subnet",
            metavar="CIDR",
            show_default="the whole range",
            help="Where a container's address comes from when it asks for no other subnet.",
        ),
    ] = ""
    ipalloc_init: Annotated[
        str,
        _addresses(
            "--ipalloc-init",
            metavar="consensus[=N]|seed=NAME,...|observer",
            show_default="consensus",
            help="How the range is first divided: by vote (of N routers, this one included), "
            "among those named, or by the others.",
        ),
    ] = ""
    no_masq_local: Annotated[
        bool,
        _host(
            "--no-masq-local",
            help="Leave the source address of what comes to containers of this host as it is.",
        ),
    ] = False
    expect_npc: Annotated[
        bool,
        _host(
            "--expect-npc",
            help="A network policy controller decides what containers may reach.",
        ),
    ] = False
    docker_bridge: Annotated[
        str,
        _host(
            "--docker-bridge",
            metavar="NAME",
            envvar="DOCKER_BRIDGE",
            show_default="none",
            help="Another bridge on this host, whose containers are kept from this router's ports.",
        ),
    ] = ""
    allow_pods_to_router: Annotated[
        bool,
        _host(
            "--allow-pods-to-router",
            help="Let containers of this host reach the router's and the API's ports.",
        ),
    ] = False
    no_packet_filter: Annotated[
        bool,
        _host(
            "--no-packet-filter",
            help="Leave the host's packet filter alone: masquerade, forwarding and the protection "
            "of ports are then yours to set up.",
        ),
    ] = False
    port_security: Annotated[
        bool,
        _host(
            "--port-security",
            help="Containers send with their own MAC and addresses only; not for those that share "
            "one among them, or bridge for others.",
        ),
    ] = False
    legacy_veth_names: Annotated[
        bool,
        _host(
            "--legacy-veth-names",
            help="Name the host's ends of containers' links after the first 7 characters of their "
            "ids, as old scripts expect: such ids must differ there.",
        ),
    ] = False
    proc_path: Annotated[
        str,
        _host(
            "--proc-path",
            metavar="PATH",
            help="In a container: where the host's /proc is mounted. Containers named by a process "
            "are looked up there.",
        ),
    ] = PROC
    host_root: opt.HostRoot = ""
    db_prefix: opt.DbPrefix = opt.DEFAULT_PREFIX
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR
    status_addr: Annotated[
        str,
        _service(
            "--status-addr",
            metavar="PATH|IP:PORT,...",
            envvar="WEAVE_STATUS_ADDR",
            show_default="none",
            help="Serve status, report and metrics here too, nothing that changes anything.",
        ),
    ] = ""
    metrics_addr: Annotated[
        str,
        _service(
            "--metrics-addr",
            metavar="PATH|IP:PORT,...",
            show_default="none",
            help="Serve metrics here too, and nothing else.",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(RouterOptions, ControlOptions):
    """What both are told, and a password that must not get into their command lines."""

    password: Annotated[
        str | None,
        _security(
            "--password",
            metavar="TEXT",
            help="For old scripts: shows in the process list; use --password-file.",
        ),
    ] = None
