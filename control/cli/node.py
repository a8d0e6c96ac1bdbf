"""Commands that talk to a running node: status, report, connect, forget, stop.

All but stop go over the HTTP API. Heavy imports wait until a command needs them. Source of truth:
node specification 10.
"""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from base.errors import ConfigError
from control.cli import options as opt

EXIT_NOT_READY: Final = 1
PARTS: Final = ("targets", "connections", "peers", "ipam")
NOT_RUNNING: Final = "Weave is not running (ignore on Kubernetes)."

app = typer.Typer()

_STATUS = """
Say how the node is; exit code 1 while it is not ready.

Examples:

  weft status

  weft status connections

  weft status ipam

  weft status peers --json | jq '.[].NickName'
"""

_REPORT = """
Tell all: connections, MAC addresses, counters. Tables on a terminal, else JSON.

Examples:

  weft report

  weft report --json | jq .Counters

  weft report -f '{{range .Router.Peers}}{{.NickName}} {{end}}'
"""

_CONNECT = """
Connect to more routers, and stay connected; with --replace to these only.

Examples:

  weft connect 192.0.2.11

  weft connect host2 host3:6783

  weft connect --replace 192.0.2.11
"""

_FORGET = """
Stop connecting to these routers, named as in weft status targets. Connections that are up stay.

Examples:

  weft forget 192.0.2.11
"""

_STOP = """
Stop the node that weft launch started here. Bridge and containers stay as they are.

Examples:

  weft stop
"""

_Peers = Annotated[list[str] | None, typer.Argument(metavar="HOST[:PORT]...", show_default=False)]


@app.command(help=_STATUS)
def status(
    part: Annotated[
        str, typer.Argument(metavar="[targets|connections|peers|ipam]", show_default=False)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Say how the node is."""
    from control.cli.client import AnswerError, check, get

    if part not in ("", *PARTS):
        raise ConfigError(f"status: no part {part!r}; use {', '.join(PARTS)} or nothing")
    path = f"/status/{part}" if part else "/status"
    answer = get(http_addr, path, "application/json" if as_json else "text/plain")
    if answer.status != 503:
        try:
            check(answer)
        except AnswerError as err:
            raise ConfigError(f"status: {err}; see 'weft status --help'") from err
    margin = "" if part or as_json else "\n"
    sys.stdout.write(f"{margin}{answer.text}{margin}" + ("\n" if as_json else ""))
    if not answer.is_success:
        raise typer.Exit(EXIT_NOT_READY)


@app.command(help=_REPORT)
def report(
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
    template: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="TEMPLATE",
            show_default="none",
            help="Print this Go template: fields as in the JSON, len, json, range, if.",
        ),
    ] = None,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Tell all."""
    if template is not None:
        if as_json:
            raise ConfigError("--format: give it or --json, not both; {{json .}} is all as JSON")
        text = _formatted(http_addr, template)
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        return
    from control.cli.client import report as fetch

    text, decoded = fetch(http_addr)
    if as_json or not sys.stdout.isatty():  # the original's scripts read JSON
        sys.stdout.write(text + "\n")
        return
    from control.cli.render import print_report

    print_report(decoded)


def _formatted(http_addr: str, template: str) -> str:
    from control.cli.client import AnswerError, check, get

    answer = get(http_addr, "/report", params={"format": template})
    try:
        check(answer)
    except AnswerError as err:
        hint = "" if answer.status == 400 else "; field names are those of weft report --json"
        raise ConfigError(f"--format: {err}{hint}") from err
    return answer.text


@app.command(help=_CONNECT)
def connect(
    peers: _Peers = None,
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget all other targets; alone: all.")
    ] = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Connect to more routers."""
    from control.cli.client import post

    if not peers and not replace:
        raise ConfigError("connect: no peer; name at least one, as weft connect 192.0.2.11")
    form = [("peer", peer) for peer in peers or ()]
    post(http_addr, "/connect", [*form, ("replace", "true")] if replace else form)


@app.command(help=_FORGET)
def forget(
    peers: _Peers = None,
    *,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Stop connecting to routers."""
    from control.cli.client import post

    if not peers:
        raise ConfigError("forget: no peer; name those of weft status targets to forget")
    post(http_addr, "/forget", [("peer", peer) for peer in peers])


@app.command(help=_STOP)
def stop(control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET) -> None:
    """Stop the node."""
    from control.cli.stop import stop as stop_launched

    if not stop_launched(control_socket, lambda line: print(line, file=sys.stderr)):
        print(NOT_RUNNING, file=sys.stderr)
