"""A report for people: tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from base.counters import Counter


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print identity, connections, MAC addresses and every counter that is not zero."""
    out = console or Console()
    router = report["Router"]
    state = "ready" if report["Ready"] else "not ready"
    out.print(
        f"{router['Name']}({router['NickName']})  {state}  version {report['Version']}",
        highlight=False,
        markup=False,
    )
    if report["UptimeSeconds"] is not None:
        out.print(
            f"router up {report['UptimeSeconds']:.0f} s, capture {report['Capture']}, "
            f"loops {report['Loops']}, MTU {report['MTU']}, "
            f"bridge repairs {report['BridgeRepairs']}",
            highlight=False,
            markup=False,
        )
    _print_table(
        out,
        "Connections",
        ("peer", "address", "state", "mtu"),
        (
            (each["Info"], each["Address"], each["State"], each["Attrs"]["mtu"])
            for each in router["Connections"]
        ),
    )
    _print_table(
        out,
        "Forwarders",
        ("peer", "tx datagrams", "tx bytes", "rx datagrams", "rx bytes"),
        (
            (
                f"{each['Name']}({each['NickName']})",
                each["TxDatagrams"],
                each["TxBytes"],
                each["RxDatagrams"],
                each["RxBytes"],
            )
            for each in report["Forwarders"]
        ),
    )
    _print_table(
        out,
        f"MAC addresses ({router['MACsTotal']})",
        ("mac", "peer", "last seen"),
        (
            (each["Mac"], f"{each['Name']}({each['NickName']})", each["LastSeen"])
            for each in router["MACs"]
        ),
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


def _print_table(
    out: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    if table.row_count:
        out.print()
        out.print(table, highlight=False, markup=False)
