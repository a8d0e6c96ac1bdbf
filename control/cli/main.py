"""The ``weft`` command: launch, control, router, demo, version; others have modules of their own.

Errors of the user are one line on standard error, ``weft: <option>: what is wrong; what to do``,
and exit code 1 (usage errors too, as the original). Heavy imports wait until a command needs them.
Source of truth: node specification 8 and 10.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

import anyio
import typer

from base import log
from base.errors import ConfigError, WeftError
from base.importing import importing
from control.cli import attach, cni, compat, host, ipam, leave, node
from control.cli import options as opt
from control.cli.commands import control_argv, replace_process, router_argv
from control.cli.entry import EXIT_INTERRUPTED
from control.cli.legacy import LegacyCommand
from control.cli.node_options import ControlOptions, LaunchOptions, RouterOptions
from control.cli.record import takes

EXIT_USER_ERROR: Final = 1

logger = logging.getLogger(__name__)

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
@takes(LaunchOptions, opt.PANELS)
def launch(options: LaunchOptions) -> None:
    """Start control and router and keep them alive."""
    from control.adopt.in_the_way import check_place
    from control.run_lock import RunLock
    from control.supervisor import Supervisor

    log.setup(options.log_level, options.log_format)
    if _printed(options):
        return
    _take_password(options)
    _check_static(options)
    if not options.adopt:
        check_place(options.capture)
    with RunLock(options.control_socket):
        supervisor = Supervisor(control_argv(options), router_argv(options))
        raise typer.Exit(anyio.run(supervisor.run))


@app.command(help=_CONTROL_EXAMPLES, cls=LegacyCommand)
@takes(ControlOptions, opt.PANELS)
def control(options: ControlOptions) -> None:
    """Be a member of the network and serve the router."""
    with importing():
        from control.cli.ranges import settle_range
        from control.daemon import run

    log.setup(options.log_level, options.log_format)
    if _printed(options):
        return
    _check_static(options)
    if options.static is None:
        given, allowed = options.ipalloc_range, options.allow_overlap or ()
        options = replace(options, ipalloc_range=settle_range(given, options.bridge, allowed))
    anyio.run(run, options, backend_options={"use_uvloop": True})


@app.command(help=_ROUTER_EXAMPLES)
@takes(RouterOptions, opt.PANELS)
def router(options: RouterOptions) -> None:
    """Become the router process."""
    replace_process(router_argv(options))


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


def _printed(options: ControlOptions) -> bool:
    """Print what is asked for instead of a node, if anything is."""
    if options.version:
        _print_version()
    elif options.print_peer_name:
        from control.cli.peer_name import peer_name

        typer.echo(peer_name(options))
    return options.version or options.print_peer_name


def _check_static(options: ControlOptions) -> None:
    if options.static is not None and options.peers:
        raise ConfigError("--static: the peers file names all peers; give none beside it")


def _take_password(options: LaunchOptions) -> None:
    """Move a password from the command line to the environment, where children find it."""
    if options.password is None:
        return
    if options.password_file is not None:
        raise ConfigError("--password: --password-file says it already; give one of them")
    os.environ["WEAVE_PASSWORD"] = options.password
    logger.warning("--password shows in the process list; use --password-file")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    command = typer.main.get_command(app)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(words)
        result = command.main(arguments, prog_name="weft", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is told now, and not by Python at its end
    except typer.TyperException as err:
        print(_usage_error(err, words), file=sys.stderr)
    except WeftError as err:
        print(f"weft: {_one_line(str(err))}", file=sys.stderr)
        return getattr(err, "exit_code", EXIT_USER_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_output()
    except OSError as err:
        if err.errno != errno.ENOSPC or err.filename is not None:
            raise
        _forget_output()
        print(f"weft: the output cannot be written: {err.strerror}", file=sys.stderr)
    else:
        return result if isinstance(result, int) else 0
    return EXIT_USER_ERROR


def _check_text(arguments: Sequence[str]) -> None:
    """Raise ConfigError for an argument that is not UTF-8: no name or address of ours is."""
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            raise ConfigError(f"{ascii(argument)[1:-1]}: this argument is no text in UTF-8")


def _forget_output() -> None:
    """What is left of standard output goes nowhere, so that Python says nothing at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _usage_error(err: typer.TyperException, words: list[str]) -> str:
    """One line from typer's idea of a usage error: option first, then the remedy.

    Of an option without its value typer does not say whose it is: of the command that stands first.
    """
    context = getattr(err, "ctx", None)
    param = getattr(err, "param", None)
    command = "weft"
    if context is not None:
        command = context.command_path
    elif words and not words[0].startswith("-"):
        command = f"weft {words[0]}"
    message = _one_line(err.message if param is not None and err.message else err.format_message())
    message = message.rstrip(".")
    if param is not None and getattr(param, "opts", None):
        message = f"{param.opts[-1]}: {message}"
    return f"weft: {message}; see '{command} --help'"


def _one_line(text: str) -> str:
    return " ".join(text.split())
