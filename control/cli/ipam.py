"""Commands about the addresses that routers divide among them: prime, rmpeer.

Source of truth: node specification 10, ipam specification 9.4.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated
from urllib.parse import quote

import typer

from base.errors import ConfigError, WeftError
from control.cli import options as opt

app = typer.Typer()

_PRIME = """
Wait until the range is divided among the routers, and have that begun if need be.

After it containers get addresses at once. Exit code 1 when --timeout passes before.

Examples:

  weft prime

  weft prime --timeout 60
"""

_RMPEER = """
Take over the addresses of routers that never come back, named as in weft status ipam.

Run it on one host, once per router. A router that can be reached is left alone, unless --force is
given: whatever it still uses would be given out twice. To take a living one away run weft reset
there.

Examples:

  weft rmpeer host3

  weft rmpeer ce:03:00:00:00:03 ce:04:00:00:00:04

  weft rmpeer host3 --json
"""

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0, show_default="for ever", help="Wait no longer."
    ),
]


@app.command(help=_PRIME)
def prime(
    timeout: Timeout = None,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Wait until the range is divided."""
    from control.cli.client import AnswerError, wait

    try:
        wait(http_addr, "/ring", timeout)
    except AnswerError as err:
        raise explained("prime", err) from err


@app.command(help=_RMPEER)
def rmpeer(
    peers: Annotated[
        list[str] | None, typer.Argument(metavar="NAME|NICK...", show_default=False)
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also a router that can be reached.")
    ] = False,
    as_json: opt.AsJson = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Take over dead routers' addresses."""
    from control.cli.client import AnswerError, delete

    if not peers:
        raise ConfigError("rmpeer: no peer; name those that weft status ipam calls unreachable")
    for peer in peers:
        if peer in ("", ".", "..") or "/" in peer:
            raise ConfigError(f"rmpeer: {peer!r} names no peer; give a name of weft status ipam")
    failed = False
    for peer in peers:
        error = None
        said = ""
        try:
            params = {"force": "true"} if force else None
            said = delete(http_addr, f"/peer/{quote(peer, safe=':')}", params)
        except AnswerError as err:
            failed = True
            error = str(explained(f"rmpeer: {peer}", err))
        if as_json:
            gained = int(said.split()[0]) if said else 0
            print(json.dumps({"Peer": peer, "TakenOver": gained, "Error": error}))
        elif error is None:
            sys.stdout.write(said)
        else:
            print(f"weft: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def explained(what: str, err: WeftError) -> WeftError:
    """The node's answer as an error of a command; a path that it does not know is IPAM's."""
    from control.cli.client import EXIT_NOT_FOUND

    if getattr(err, "exit_code", 1) == EXIT_NOT_FOUND:
        return ConfigError(
            f"{what}: this node gives out no addresses (--static, or --ipalloc-range is empty)"
        )
    return ConfigError(f"{what}: {err}")
