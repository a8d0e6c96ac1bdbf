"""A report for people: tables on standard output. Text that other routers chose is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from base.counters import Counter
from control.api.printable import printable


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print identity, connections, MAC addresses and every counter that is not zero."""
    out = console or Console()
    router = report["Router"]
    state = "ready" if report["Ready"] else "not ready"
    _print_line(out, f"{_peer(router)}  {state}  version {report['Version']}")
    if report["UptimeSeconds"] is not None:
        _print_line(
            out,
            f"router up {report['UptimeSeconds']:.0f} s, capture {report['Capture']}, "
            f"loops {report['Loops']}, MTU {report['MTU']}, "
            f"bridge repairs {report['BridgeRepairs']}",
        )
    for warning in report["Warnings"]:
        _print_line(out, f"Warning: {warning}")
    for each in report["Forwarders"]:
        if each["Degraded"]:
            _print_line(out, f"Degraded: {_peer(each)}: {each['Degraded']}")
    _print_table(
        out,
        "Connections",
        ("address", "state", "peer, or why there is none"),
        (
            (
                f"{'->' if each['Outbound'] else '<-'} {each['Address']}",
                each["State"],
                _peer(each) if each["Name"] else each["Info"],
            )
            for each in router["Connections"] or ()
        ),
    )
    _print_table(
        out,
        "Forwarders",
        ("peer", "cipher", "mtu", "rtt", "tx bytes", "rx bytes"),
        (
            (
                _peer(each),
                each["Cipher"],
                each["MTU"],
                f"{each['RTTMilliseconds']:.1f} ms" if each["RTTMilliseconds"] else "",
                each["TxBytes"],
                each["RxBytes"],
            )
            for each in report["Forwarders"]
        ),
    )
    _print_ranges(out, report.get("IPAM"))
    _print_table(
        out,
        f"MAC addresses ({router['MACsTotal']})",
        ("mac", "peer", "last seen"),
        ((each["Mac"], _peer(each), each["LastSeen"]) for each in router["MACs"] or ()),
    )
    meanings = {counter.value: counter.meaning for counter in Counter}
    _print_table(
        out,
        "Counters",
        ("counter", "value", "meaning"),
        (
            (name, value, meanings.get(name, ""))
            for name, value in report["Counters"].items()
            if value
        ),
    )


def _print_ranges(out: Console, ipam: dict[str, Any] | None) -> None:
    """Who owns how many addresses, the largest share first."""
    shares: dict[tuple[str, str, bool], int] = {}
    for entry in (ipam or {}).get("Entries") or ():
        key = (entry["Peer"], entry["Nickname"], entry["IsKnownPeer"])
        shares[key] = shares.get(key, 0) + entry["Size"]
    if ipam is not None:
        _print_table(
            out,
            f"Addresses of {ipam['Range']}, {ipam['ActiveIPs']} in use here",
            ("peer", "addresses", ""),
            (
                (f"{name}({nick})", size, "" if known else "unreachable")
                for (name, nick, known), size in sorted(
                    shares.items(), key=lambda item: (-item[1], item[0])
                )
            ),
        )


def _peer(each: dict[str, Any]) -> str:
    return f"{each['Name']}({each['NickName']})"


def _print_line(out: Console, text: str) -> None:
    out.print(Text(printable(text)))


def _print_table(
    out: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text and not str, in which rich would look for markup
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    if table.row_count:
        out.print()
        out.print(table)
