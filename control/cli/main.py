"""The ``weft`` command: launch, control, router, demo, version; others have modules of their own.

Errors of the user are one line on standard error, ``weft: <option>: what is wrong; what to do``,
and exit code 1 (usage errors too, as the original). Heavy imports wait until a command needs them.
Source of truth: node specification 8 and 10.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from base import log
from base.errors import ConfigError, WeftError
from control.cli import attach, cni, compat, host, ipam, leave, node
from control.cli import options as opt
from control.cli.commands import (
    ControlCommand,
    RouterOptions,
    control_argv,
    replace_process,
    router_argv,
)
from control.cli.legacy import LegacyCommand

EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="weft",
    help="A flat Ethernet for containers across hosts, compatible with Weave Net.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LAUNCH_EXAMPLES = """
Start this node in the foreground: control and router, restarted when they die.

One other router is enough to join a network; the first one is started without. With a password all
of them need the same. SIGTERM or Ctrl-C stops both, and so does weft stop.

Examples:

  weft launch

  weft launch 192.0.2.10 --password-file /etc/weft/password

  weft launch host1 host2:6783 --no-discovery --trusted-subnets 10.0.0.0/8

  weft launch host1 --ipalloc-range 10.40.0.0/16 --ipalloc-init consensus=3

  weft launch --resume

  weft launch --static /etc/weft/peers.toml
"""

_CONTROL_EXAMPLES = """
Run control alone: membership and the HTTP API. It takes what weft launch takes for these.

Examples:

  weft control 192.0.2.10 --password-file /etc/weft/password

  weft control --static peers.toml --nickname host1 --http-addr 127.0.0.1:6784
"""

_ROUTER_EXAMPLES = """
Run the router alone: it moves frames and gets its table from control.

Examples:

  weft router

  weft router --weave-bridge weave --mtu auto --capture tap --loops auto
"""


@app.callback(invoke_without_command=True)
def _weft(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    local: Annotated[bool, typer.Option("--local", hidden=True)] = False,
) -> None:
    if local:
        compat.check_local()
    if version:
        _print_version()
    elif context.invoked_subcommand is None:
        with contextlib.redirect_stdout(sys.stderr):  # rich prints help instead of returning it
            typer.echo(context.get_help())
        raise typer.Exit(EXIT_USER_ERROR)


@app.command(help=_LAUNCH_EXAMPLES, cls=LegacyCommand)
def launch(
    peers: opt.Peers = None,
    *,
    static: opt.Static = None,
    name: opt.Name = None,
    nickname: opt.Nickname,
    resume: opt.Resume = False,
    no_discovery: opt.NoDiscovery = False,
    conn_limit: opt.ConnLimit = opt.CONN_LIMIT,
    password_file: opt.PasswordFile = None,
    password: opt.Password = None,
    trusted_subnets: opt.TrustedSubnets = "",
    db_prefix: opt.DbPrefix = opt.DEFAULT_PREFIX,
    ipalloc_range: opt.IpallocRange = None,
    allow_overlap: opt.AllowOverlap = None,
    ipalloc_default_subnet: opt.IpallocDefaultSubnet = "",
    ipalloc_init: opt.IpallocInit = "",
    no_masq_local: opt.NoMasqLocal = False,
    expect_npc: opt.ExpectNpc = False,
    docker_bridge: opt.DockerBridge = "",
    allow_pods_to_router: opt.PodsToRouter = False,
    no_packet_filter: opt.NoPacketFilter = False,
    legacy_veth_names: opt.LegacyVethNames = False,
    bridge: opt.Bridge = "weave",
    host: opt.Host = "",
    port: opt.Port = opt.DEFAULT_PORT,
    mtu: opt.Mtu = None,
    capture: opt.Capture = None,
    loops: opt.Loops = None,
    bufsz: opt.BufferMb = None,
    adopt: opt.Adopt = False,
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
    status_addr: opt.StatusAddr = "",
    metrics_addr: opt.MetricsAddr = "",
    min_protocol_version: opt.MinProtocolVersion = None,  # noqa: ARG001 - checked, no more
    print_peer_name: opt.PrintPeerName = False,
    log_level: opt.LogLevel,
    log_format: opt.LogFormat = "kv",
) -> None:
    """Start control and router and keep them alive."""
    from control.run_lock import RunLock
    from control.supervisor import Supervisor

    log.setup(log_level, log_format)
    if print_peer_name:
        _print_peer_name(name, bridge, db_prefix, http_addr)
        return
    opt.take_password(password, password_file)
    control = control_argv(
        ControlCommand(
            peers=tuple(peers or ()),
            static=_static(static, peers),
            name=name,
            nickname=nickname,
            resume=resume,
            discovery=not no_discovery,
            conn_limit=conn_limit,
            password_file=password_file,
            trusted_subnets=trusted_subnets,
            db_prefix=db_prefix,
            ipalloc_range=ipalloc_range,
            allow_overlap=tuple(allow_overlap or ()),
            ipalloc_default_subnet=ipalloc_default_subnet,
            ipalloc_init=ipalloc_init,
            no_masq_local=no_masq_local,
            expect_npc=expect_npc,
            docker_bridge=docker_bridge,
            pods_to_router=allow_pods_to_router,
            packet_filter=not no_packet_filter,
            legacy_veth_names=legacy_veth_names,
            adopt=adopt,
            status_addr=status_addr,
            metrics_addr=metrics_addr,
            bridge=bridge,
            host=host,
            port=port,
            control_socket=control_socket,
            http_addr=http_addr,
            log_level=log_level,
            log_format=log_format,
        )
    )
    router = router_argv(
        RouterOptions(
            control_socket,
            bridge,
            host,
            port,
            log_level,
            log_format,
            mtu=mtu,
            capture=capture,
            loops=loops,
            buffer_mb=bufsz,
            adopt=adopt,
        )
    )
    with RunLock(control_socket):
        raise typer.Exit(anyio.run(Supervisor(control, router).run))


@app.command(help=_CONTROL_EXAMPLES, cls=LegacyCommand)
def control(
    peers: opt.Peers = None,
    *,
    static: opt.Static = None,
    name: opt.Name = None,
    nickname: opt.Nickname,
    resume: opt.Resume = False,
    no_discovery: opt.NoDiscovery = False,
    conn_limit: opt.ConnLimit = opt.CONN_LIMIT,
    password_file: opt.PasswordFile = None,
    trusted_subnets: opt.TrustedSubnets = "",
    db_prefix: opt.DbPrefix = opt.DEFAULT_PREFIX,
    ipalloc_range: opt.IpallocRange = None,
    allow_overlap: opt.AllowOverlap = None,
    ipalloc_default_subnet: opt.IpallocDefaultSubnet = "",
    ipalloc_init: opt.IpallocInit = "",
    no_masq_local: opt.NoMasqLocal = False,
    expect_npc: opt.ExpectNpc = False,
    docker_bridge: opt.DockerBridge = "",
    allow_pods_to_router: opt.PodsToRouter = False,
    no_packet_filter: opt.NoPacketFilter = False,
    legacy_veth_names: opt.LegacyVethNames = False,
    adopt: opt.Adopt = False,
    bridge: opt.Bridge = "weave",
    host: opt.Host = "",
    port: opt.Port = opt.DEFAULT_PORT,
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
    status_addr: opt.StatusAddr = "",
    metrics_addr: opt.MetricsAddr = "",
    min_protocol_version: opt.MinProtocolVersion = None,  # noqa: ARG001 - checked, no more
    print_peer_name: opt.PrintPeerName = False,
    log_level: opt.LogLevel,
    log_format: opt.LogFormat = "kv",
) -> None:
    """Be a member of the network and serve the router."""
    from control.cli.ranges import settle_range
    from control.daemon import run
    from control.parts import ControlOptions

    log.setup(log_level, log_format)
    if print_peer_name:
        _print_peer_name(name, bridge, db_prefix, http_addr)
        return
    options = ControlOptions(
        nickname=nickname,
        control_socket=control_socket,
        http_addr=http_addr,
        port=port,
        host=host,
        static=_static(static, peers),
        name=name,
        bridge=bridge,
        peers=tuple(peers or ()),
        resume=resume,
        password_file=password_file,
        trusted_subnets=trusted_subnets,
        discovery=not no_discovery,
        conn_limit=conn_limit,
        db_prefix=db_prefix,
        status_addr=status_addr,
        metrics_addr=metrics_addr,
        ipalloc_range="" if static else settle_range(ipalloc_range, bridge, allow_overlap or ()),
        ipalloc_default_subnet=ipalloc_default_subnet,
        ipalloc_init=ipalloc_init,
        no_masq_local=no_masq_local,
        expect_npc=expect_npc,
        docker_bridge=docker_bridge,
        pods_to_router=allow_pods_to_router,
        packet_filter=not no_packet_filter,
        legacy_veth_names=legacy_veth_names,
        adopt=adopt,
    )
    anyio.run(run, options, backend_options={"use_uvloop": True})


@app.command(help=_ROUTER_EXAMPLES)
def router(
    *,
    bridge: opt.Bridge = "weave",
    host: opt.Host = "",
    port: opt.Port = opt.DEFAULT_PORT,
    mtu: opt.Mtu = None,
    capture: opt.Capture = None,
    loops: opt.Loops = None,
    bufsz: opt.BufferMb = None,
    adopt: opt.Adopt = False,
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET,
    log_level: opt.LogLevel,
    log_format: opt.LogFormat = "kv",
) -> None:
    """Become the router process."""
    replace_process(
        router_argv(
            RouterOptions(
                control_socket,
                bridge,
                host,
                port,
                log_level,
                log_format,
                mtu=mtu,
                capture=capture,
                loops=loops,
                buffer_mb=bufsz,
                adopt=adopt,
            )
        )
    )


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def demo(context: typer.Context) -> None:
    """Show a cluster on this machine: weft demo --nodes 3 (see weft demo --help)."""
    replace_process([sys.executable, "-P", "-m", "lab.demo", *context.args])


app.add_typer(node.app)
app.add_typer(ipam.app)
app.add_typer(leave.app)
app.add_typer(host.app)
app.add_typer(attach.app)
app.add_typer(cni.app)
app.add_typer(compat.app)


@app.command()
def version() -> None:
    """Print the version."""
    _print_version()


def _print_version() -> None:
    from control.version import weft_version

    typer.echo(f"weft {weft_version()}")


def _print_peer_name(name: str | None, bridge: str, db_prefix: str, http_addr: str) -> None:
    from control.identity import settle_name
    from control.state import StateInUseError

    try:
        typer.echo(settle_name(name, bridge, db_prefix))
    except StateInUseError:  # by a node that can be asked
        from control.cli.client import report

        typer.echo(report(http_addr)[1]["Router"]["Name"])


def _static(path: Path | None, peers: list[str] | None) -> Path | None:
    if path is not None and peers:
        raise ConfigError("--static: the peers file names all peers; give none beside it")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="weft", standalone_mode=False)
    except typer.TyperException as err:
        print(_usage_error(err), file=sys.stderr)
    except WeftError as err:
        print(f"weft: {_one_line(str(err))}", file=sys.stderr)
        return getattr(err, "exit_code", EXIT_USER_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_USER_ERROR
    else:
        return result if isinstance(result, int) else 0
    return EXIT_USER_ERROR


def _usage_error(err: typer.TyperException) -> str:
    """One line from typer's idea of a usage error: option first, then the remedy."""
    context = getattr(err, "ctx", None)
    param = getattr(err, "param", None)
    command = context.command_path if context is not None else "weft"
    message = _one_line(err.message if param is not None and err.message else err.format_message())
    message = message.rstrip(".")
    if param is not None and getattr(param, "opts", None):
        message = f"{param.opts[-1]}: {message}"
    return f"weft: {message}; see '{command} --help'"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
