"""Commands about containers: attach, detach, ps, audit, attach-bridge, bridge-type.

The running node does the work, asked over its Unix socket; the last two look at the host
themselves. Source of truth: node specification 6 and 10.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from base.errors import ConfigError
from control.cli import options as opt

EXIT_LEAKS: Final = 1
EXPOSE_ID: Final = "weave:expose"
_ID_SHOWN_LEN: Final = 12
#: An id as runtimes make them, not a name that somebody chose.
_MADE_ID: Final = re.compile("[0-9a-f]{12,}")

app = typer.Typer()

_ATTACH = """
Put a running container on the network. Prints the addresses asked for.

ADDRESS is 10.2.1.1/24, or net:10.2.1.0/24 for any address of a subnet, or
net:default, which is also meant when there is none. Attaching again adds
addresses and leaves those that are there.

CONTAINER is a namespace of ip netns, a container of podman or Docker, or a
pod of containerd or CRI-O: its name, also as namespace/name, its id or the
beginning of it, or those of a container in the pod. With --netns or --pid it
is any name that the attachment is to have.

Examples:

  weft attach web1

  weft attach 10.2.1.3/24 net:10.2.2.0/24 web1

  weft attach default/web-0

  weft attach --pid 4711 job-17

  weft attach --netns /run/netns/blue --name eth1 net:10.2.2.0/24 blue
"""

_DETACH = """
Take a container off the network: its addresses of the default subnet, or those given. With its last
address the interface goes. Never waits for other hosts. Prints the addresses.

CONTAINER is named as for weft attach, or by the beginning of a runtime's id that weft ps shows.

Examples:

  weft detach web1

  weft detach net:10.2.2.0/24 web1

  weft detach --all web1
"""

_PS = """
List what is attached: id, MAC address, addresses; first of all the host itself.

CONTAINER is the beginning of an id that is shown, or a name as for weft attach.

Examples:

  weft ps

  weft ps web1 default/web-0

  weft ps --json | jq '.[].Addresses'
"""

_AUDIT = """
Look for leftovers: interfaces without a record, records without an interface, addresses held for
nobody. Exit code 1 if there are any.

Examples:

  weft audit

  weft audit --json | jq .Leaks
"""

_ATTACH_BRIDGE = """
Join another bridge of this host to the network, as if by a cable. Again is the same. What crosses
is not masqueraded, whatever the other bridge's owner has set up. weft reset takes it away.

Examples:

  weft attach-bridge

  weft attach-bridge br0
"""

_Words = Annotated[
    list[str] | None, typer.Argument(metavar="[ADDRESS]... CONTAINER", show_default=False)
]
_Netns = Annotated[
    str | None,
    typer.Option(
        "--netns", metavar="PATH", show_default="none", help="Network namespace of the container."
    ),
]
_Pid = Annotated[
    int | None,
    typer.Option("--pid", metavar="N", show_default="none", help="A process in the container."),
]
_Name = Annotated[str, typer.Option("--name", metavar="IFNAME", help="Interface in the container.")]
_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(help=_ATTACH)
def attach(
    words: _Words = None,
    *,
    netns: _Netns = None,
    pid: _Pid = None,
    name: _Name = "ethwe",
    bridge: Annotated[
        str | None,
        typer.Option("--bridge", metavar="NAME", show_default="the node's", help="Bridge."),
    ] = None,
    no_multicast_route: Annotated[
        bool, typer.Option("--no-multicast-route", help="Leave multicast's route as it is.")
    ] = False,
    mtu: Annotated[
        int | None,
        typer.Option("--mtu", metavar="BYTES", show_default="the bridge's", help="MTU."),
    ] = None,
    no_hairpin: Annotated[
        bool,
        typer.Option("--no-hairpin", help="The container does not reach itself by a service."),
    ] = False,
    without_dns: Annotated[
        bool, typer.Option("--without-dns", help="Make no name of it in weaveDNS.")
    ] = False,
    rewrite_hosts: Annotated[bool, typer.Option("--rewrite-hosts", hidden=True)] = False,
    add_host: Annotated[list[str] | None, typer.Option("--add-host", hidden=True)] = None,
    as_json: _Json = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Put a running container on the network."""
    from control.cli.client import change_json

    del without_dns  # names are made by the name server's own commands
    if rewrite_hosts or add_host:
        print("weft: --rewrite-hosts, --add-host: the runtime writes /etc/hosts", file=sys.stderr)
    addresses, container = _split(words, "attach")
    body: dict[str, Any] = {
        "addresses": addresses,
        "ifname": name,
        "multicast_route": not no_multicast_route,
        "hairpin": not no_hairpin,
    }
    if bridge is not None:
        body["bridge"] = bridge
    if mtu is not None:
        body["mtu"] = mtu
    container, where = _locate(container, netns, pid)
    made = change_json(http_addr, "POST", _path(container), body | where, patient=True)
    _warn_of_overlap(addresses, made["Bridge"])
    requested = made.pop("Requested")
    _print(made if as_json else requested, as_json=as_json)


@app.command(help=_DETACH)
def detach(
    words: _Words = None,
    *,
    netns: _Netns = None,
    pid: _Pid = None,
    name: _Name = "ethwe",
    everything: Annotated[
        bool, typer.Option("--all", help="All addresses, and so the interface.")
    ] = False,
    as_json: _Json = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """Take a container off the network."""
    from control.cli.client import change_json

    addresses, container = _split(words, "detach")
    if netns is not None and pid is not None:
        raise ConfigError("--pid: --netns says it already; give one of them")
    query = [("addr", each) for each in addresses]
    query.append(("ifname", name))
    if everything:
        query.append(("all", "true"))
    if netns is not None or pid is not None:
        query.append(("netns", f"/proc/{pid}/ns/net" if netns is None else _absolute(netns)))
    container = _attached(http_addr, container)
    gone = change_json(http_addr, "DELETE", _path(container), query=query)
    _print(gone, as_json=as_json)


@app.command(help=_PS)
def ps(
    containers: Annotated[
        list[str] | None, typer.Argument(metavar="[CONTAINER]...", show_default="all")
    ] = None,
    *,
    as_json: _Json = False,
    http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR,
) -> None:
    """List what is attached."""
    from control.cli.client import change_json

    found = change_json(http_addr, "GET", "/attach")
    rows = [{"Container": EXPOSE_ID, **found["Expose"]}] if found["Expose"]["Mac"] else []
    rows += found["Attachments"]
    if containers:
        meant = {ident for text in containers for ident in _meant(text, rows)}
        rows = [row for row in rows if row["Container"] in meant]
    if as_json:
        print(json.dumps(rows, indent=4))
        return
    for row in rows:
        print(" ".join((row["Container"][:_ID_SHOWN_LEN], row["Mac"], *row["Addresses"])))


@app.command(help=_AUDIT)
def audit(as_json: _Json = False, http_addr: opt.HttpAddr = opt.DEFAULT_HTTP_ADDR) -> None:
    """Look for leftovers."""
    from control.cli.client import change_json

    found = change_json(http_addr, "GET", "/audit")
    if as_json:
        print(json.dumps(found, indent=4))
    else:
        words = (
            ("Leaks", "leak"),
            ("Problems", "problem"),
            ("Unattached", "unattached"),
            ("Notes", "note"),
        )
        for key, word in words:
            for text in found[key]:
                print(f"{word}: {text}")
        if not found["Leaks"] and not found["Problems"]:
            print("nothing is left over")
    if found["Leaks"]:
        raise typer.Exit(EXIT_LEAKS)


@app.command("attach-bridge", help=_ATTACH_BRIDGE)
def attach_bridge(
    other: Annotated[str, typer.Argument(metavar="[BRIDGE]")] = "docker0",
    *,
    bridge: opt.Bridge = "weave",
) -> None:
    """Join another bridge to the network."""
    from cni.bridges import join_bridges

    join_bridges(bridge, other)


@app.command("bridge-type")
def bridge_type(bridge: opt.Bridge = "weave") -> None:
    """Print what the network's bridge is; exit code 1 if there is none."""
    from cni.bridges import type_of_bridge

    print(type_of_bridge(bridge))


def _split(words: list[str] | None, command: str) -> tuple[list[str], str]:
    """(addresses, container): the container stands last, as the original has it."""
    from control.host.address_spec import parse_specs

    if not words:
        raise ConfigError(f"{command}: no container; see 'weft {command} --help'")
    *addresses, container = words
    parse_specs(addresses)
    return addresses, container


def _warn_of_overlap(addresses: list[str], bridge: str) -> None:
    """Say which of the fixed addresses this host would look for elsewhere."""
    from control.host.address_spec import FixedAddress, parse_specs
    from control.host.overlap import OverlapError, check_address, host_routes

    specs = parse_specs(addresses)
    fixed = [spec.address for spec in specs if isinstance(spec, FixedAddress)]
    routes = host_routes((bridge,)) if fixed else []
    for address in fixed:
        try:
            check_address(address, routes)
        except OverlapError as err:
            print(f"weft: warning: {err}", file=sys.stderr)


def _locate(container: str, netns: str | None, pid: int | None) -> tuple[str, dict[str, Any]]:
    from cni.names import check_container_id
    from control.cli.containers import find

    if netns is not None and pid is not None:
        raise ConfigError("--pid: --netns says it already; give one of them")
    if netns is not None:
        return check_container_id(container), {"netns": _absolute(netns)}
    if pid is not None:
        return check_container_id(container), {"pid": pid}
    found = find(container)
    return found.ident, {"netns": found.netns, "label": found.label}


def _absolute(path: str) -> str:
    """The node has another working directory. Links are its own to follow."""
    return str(Path(path).absolute())


def _attached(http_addr: str, text: str) -> str:
    """The id of an attached container from its id, the beginning of it, or its name."""
    from control.cli.client import change_json
    from control.cli.containers import UnknownContainerError, check_name

    check_name(text)
    known: list[dict[str, Any]] = change_json(http_addr, "GET", "/attach")["Attachments"]
    begins = _beginning(text, known)
    if text in begins:
        return text
    # nobody shortens a name: whoever means web1, which is gone, does not mean web10
    begins = {ident for ident in begins if _MADE_ID.fullmatch(ident)}
    if len(begins) > 1:
        raise ConfigError(f'detach: "{text}" is the beginning of {len(begins)} ids; give more')
    if begins:
        return begins.pop()
    try:
        return _named(text, known)
    except UnknownContainerError:
        if "/" in text:
            raise
        # it is not attached, or it is gone and we never knew: the node says
        return text


def _meant(text: str, rows: list[dict[str, Any]]) -> set[str]:
    """The ids that ``text`` means: all in ``rows`` that begin so, or the one that is named so."""
    from control.cli.containers import UnknownContainerError

    if text == EXPOSE_ID:
        return {EXPOSE_ID}
    try:
        return _beginning(text, rows) or {_named(text, rows)}
    except UnknownContainerError:
        return set()


def _beginning(text: str, rows: list[dict[str, Any]]) -> set[str]:
    return {row["Container"] for row in rows if row["Container"].startswith(text)}


def _named(text: str, rows: list[dict[str, Any]]) -> str:
    """The id of the container called ``text``: as the rows have it, else as the runtimes do.

    A pod that is gone is still found by its name if it was attached. A name without the namespace
    is left to the runtimes first, since it may be that of something else.

    Raises:
        UnknownContainerError: nobody knows it.
        ConfigError: it is no name, or there are several.
    """
    from control.cli.containers import UnknownContainerError, look_up

    labels: set[tuple[str, str]] = {
        (row["Container"], row["Label"]) for row in rows if row.get("Label")
    }
    whole = [ident for ident, label in labels if label == text]
    if len(whole) == 1:
        return whole[0]
    try:
        return look_up(text).ident
    except UnknownContainerError:
        short = [ident for ident, label in labels if label.rpartition("/")[2] == text]
        if len(found := whole or short) > 1:
            raise ConfigError(
                f'container "{text}": {len(found)} attachments have a pod\'s name like this; '
                "give the id that weft ps shows"
            ) from None
        if not found:
            raise
        return found[0]


def _path(container: str) -> str:
    return f"/attach/{container}"


def _print(found: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=4))
    elif found:
        print(" ".join(cidr.partition("/")[0] for cidr in found))
