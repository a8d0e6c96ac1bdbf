"""Commands about this host: expose, hide, doctor.

expose and hide ask the running node over the HTTP API; doctor looks for itself. Source of truth:
node specification 4 and 10.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final

import typer

from control.cli import options as opt

EXIT_UNWELL: Final = 1

app = typer.Typer()

_EXPOSE = """
Give this host an address on the overlay, and the overlay a way out: containers reach what the host
reaches, and the host reaches them. Prints the addresses.

ADDRESS is 10.2.1.1/24, or net:10.2.1.0/24 for any address of a subnet, or net:default, which is
also meant when there is none. Again is the same.

Examples:

  weft expose

  weft expose 10.2.1.132/24 net:10.2.2.0/24

  weft expose --without-masquerade
"""

_HIDE = """
Undo weft expose: address, rules and record go. Never waits for other hosts. Prints the addresses.

Examples:

  weft hide

  weft hide 10.2.1.132/24 net:10.2.2.0/24
"""

_DOCTOR = """
Look at everything on this host that a node depends on, and say what to do. Needs no running node;
exit code 1 if something is broken.

Examples:

  weft doctor

  weft doctor --ipalloc-range 10.32.0.0/12

  weft doctor --json | jq '.[] | select(.State != "ok")'
"""

_Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="[ADDRESS]...", show_default="net:default")
]
_Json = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


@app.command(help=_EXPOSE, context_settings={"help_option_names": ["--help"]})
def expose(
    addresses: _Addresses = None,
    *,
    without_masquerade: Annotated[
        bool,
        typer.Option(
            "--without-masquerade",
            help="Keep source addresses; the world outside needs a route to the overlay then.",
        ),
    ] = False,
    fqdn: Annotated[
        str | None,
        typer.Option(
            "-h", metavar="FQDN", show_default="none", help="Name of the address in weaveDNS."
        ),
    ] = None,
    as_json: _Json = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Give this host an address on the overlay."""
    from control.cli.client import change

    form = _form(addresses)
    if without_masquerade:
        form.append(("skipNAT", "true"))
    if fqdn is not None:
        print("weft: -h has no effect: names are not served yet", file=sys.stderr)
        form.append(("fqdn", fqdn))
    _print(change(http_addr, "POST", "/expose", form, patient=True), as_json=as_json)


@app.command(help=_HIDE)
def hide(
    addresses: _Addresses = None,
    *,
    as_json: _Json = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Undo expose."""
    from control.cli.client import change

    _print(change(http_addr, "DELETE", "/expose", _form(addresses)), as_json=as_json)


@app.command(help=_DOCTOR)
def doctor(
    bridge: opt.Bridge = "weave",
    ipalloc_range: Annotated[
        str | None,
        typer.Option(
            "--ipalloc-range",
            metavar="CIDR",
            show_default="10.32.0.0/12",
            help="Range to look for among the host's routes.",
        ),
    ] = None,
    allow_overlap: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-overlap",
            metavar="CIDR",
            show_default="none",
            help="Route that may overlap; may be given again.",
        ),
    ] = None,
    host_root: opt.HostRoot = "",
    as_json: _Json = False,
) -> None:
    """Look at everything on this host that a node depends on."""
    from control.host.doctor import FAIL, WARN, DoctorOptions, examine

    checks = examine(DoctorOptions.of(bridge, ipalloc_range, allow_overlap or (), host_root))
    if as_json:
        sys.stdout.write(json.dumps([check.record() for check in checks], indent=4) + "\n")
    else:
        for check in checks:
            print(check.line())
    if any(check.state == FAIL for check in checks):
        raise typer.Exit(EXIT_UNWELL)
    if not as_json and not any(check.state == WARN for check in checks):
        print("all is well")


def _form(addresses: list[str] | None) -> list[tuple[str, str]]:
    """The form; what is no address is refused here, as a fault of the command line."""
    from control.host.address_spec import parse_specs

    parse_specs(addresses or [])
    return [("addr", address) for address in addresses or []]


def _print(answer: str, *, as_json: bool) -> None:
    cidrs = answer.split()
    if as_json:
        print(json.dumps(cidrs))
    elif cidrs:
        print(" ".join(cidr.partition("/")[0] for cidr in cidrs))
