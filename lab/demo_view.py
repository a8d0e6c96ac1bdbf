"""What the demo looks like: progress on standard error, tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from lab.demo_addresses import Addresses, Share
    from lab.demo_run import Findings, Hop, LinkResult, PairResult, RawResult

_PIPE_WIDTH = 120
_DUMP_BYTES = 80
_BAR_WIDTH = 40
Parts = tuple[tuple[str, int], ...]
_OUTER: Parts = (("Ethernet", 14), ("IPv4", 20), ("UDP", 8), ("sender", 6))
_PLAIN_PARTS: Parts = (
    *_OUTER,
    ("source peer", 6),
    ("dest. peer", 6),
    ("frame length", 2),
    ("frame", 0),
)
_SEALED_PARTS: Parts = (*_OUTER, ("DF, number", 8), ("tag", 16), ("ciphertext", 0))


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"weft demo: {text}", file=sys.stderr)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each step when it begins.

    A terminal gets a bar that disappears; anything else one line per step.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: print(f"… {text}", file=sys.stderr, flush=True)
        return
    columns = (
        TextColumn("[bold]{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def step(text: str) -> None:
            nonlocal begun
            bar.update(task, description=text, completed=begun)
            begun += 1

        yield step


def show(findings: Findings) -> None:
    """Print all tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    summary = findings.summary
    console.print(
        f"\n[bold]{summary.nodes} nodes, {summary.topology}, "
        f"{'encrypted' if summary.encrypted else 'not encrypted'}[/]; "
        "every router, container and iperf3 shares this machine's cores"
    )
    console.print(_pairs_table(summary.pairs, summary.raw))
    console.print(_links_table(summary.connections))
    _show_addresses(console, summary.addresses)
    _show_way(console, findings.way, encrypted=summary.encrypted)
    console.print(_fdb_table(findings.reports))
    console.print(_counter_table(findings.reports))


def _pairs_table(pairs: tuple[PairResult, ...], raw: RawResult) -> Table:
    table = Table(title="Between containers", title_justify="left")
    for heading in ("from", "to", ""):
        table.add_column(heading)
    for heading in ("ping ms", "TCP Gbit/s", "÷ raw", "UDP Gbit/s", "÷ raw", "MTU"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        table.add_row(
            pair.from_,
            pair.to,
            "ok" if pair.ok else "[bold red]failed[/]",
            _number(pair.ping_ms, 3),
            _number(pair.tcp_gbps, 2),
            _ratio(pair.tcp_gbps, raw.tcp_gbps),
            _number(pair.udp_gbps, 2),
            _ratio(pair.udp_gbps, raw.udp_gbps),
            str(pair.mtu),
        )
    table.add_section()
    figures = (_number(raw.ping_ms, 3), _number(raw.tcp_gbps, 2), "1.00")
    table.add_row("raw veth", "", "", *figures, _number(raw.udp_gbps, 2), "1.00", "")
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None, of: float) -> str:
    return "–" if value is None or not of else f"{value / of:.2f}"


def _links_table(links: tuple[LinkResult, ...]) -> Table:
    table = Table(title="Connections", title_justify="left")
    for heading in ("node", "", "peer", "state", "overlay", "cipher"):
        table.add_column(heading)
    for heading in ("MTU", "RTT ms"):
        table.add_column(heading, justify="right")
    table.add_column("degraded")
    for link in links:
        table.add_row(
            link.node,
            "→" if link.outbound else "←",
            link.peer,
            link.state,
            "sleeve",
            link.cipher,
            str(link.mtu or "–"),
            _number(link.rtt_ms, 1),
            link.degraded,
        )
    return table


def _show_addresses(console: Console, addresses: Addresses) -> None:
    """The range as bars, before and after a node is lost."""
    console.print(
        f"\n[bold]Addresses[/]: {addresses.range}, divided by vote in {addresses.division_s:.1f} s"
    )
    _show_shares(console, addresses.before)
    console.print(
        f" {addresses.lost} is killed; [bold]weft rmpeer {addresses.lost}[/] on {addresses.heir}: "
        f"{addresses.taken_over:,} addresses taken over"
    )
    _show_shares(console, addresses.after)


def _show_shares(console: Console, shares: tuple[Share, ...]) -> None:
    for share in shares:
        filled = round(share.percent / 100 * _BAR_WIDTH)
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        used = "" if share.in_use is None else f"  {share.in_use} in use"
        console.print(f"  {share.node:<6} {bar} {share.percent:5.1f} %  {share.ips:>9,}{used}")


def _show_way(console: Console, way: tuple[Hop, ...], *, encrypted: bool) -> None:
    console.print("\n[bold]A frame's way[/]: one ping request, captured where it passes")
    for number, hop in enumerate(way, 1):
        console.print(f" {number}. [bold]{escape(hop.place)}[/]")
        for line in hop.lines:
            console.print(f"      {escape(line)}", soft_wrap=True)
    datagrams = [hop for hop in way if hop.place.startswith("underlay")]
    if datagrams:
        console.print("\n[bold]The first datagram's bytes[/]")
        parts = _SEALED_PARTS if encrypted else _PLAIN_PARTS
        for label, octets in _dump(datagrams[0].data, parts):
            console.print(f"  {label:<16}{octets}")
    console.print()


def _dump(data: bytes, parts: Parts) -> Iterator[tuple[str, str]]:
    """Labelled hex of a datagram's headers and the beginning of what follows."""
    at = 0
    *headers, (last, _) = parts
    for label, length in headers:
        yield label, data[at : at + length].hex(" ")
        at += length
    rest = data[at:]
    for start in range(0, min(len(rest), _DUMP_BYTES), 20):
        label = last if start == 0 else ""
        more = " …" if start + 20 >= _DUMP_BYTES < len(rest) else ""
        yield label, rest[start : start + 20].hex(" ") + more


def _fdb_table(reports: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Forwarding tables", title_justify="left")
    table.add_column("MAC address")
    for node in reports:
        table.add_column(f"seen by {node} at")
    known = {
        node: {entry["Mac"]: entry["NickName"] for entry in report["Router"]["MACs"] or ()}
        for node, report in reports.items()
    }
    for mac in sorted({mac for table_of in known.values() for mac in table_of}):
        table.add_row(mac, *(known[node].get(mac, "–") for node in reports))
    return table


def _counter_table(reports: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Counters (those that are not zero)", title_justify="left")
    table.add_column("counter")
    for node in reports:
        table.add_column(node, justify="right")
    counters = {node: report["Counters"] for node, report in reports.items()}
    names = dict.fromkeys(name for counted in counters.values() for name in counted)
    for name in names:
        values = [counted.get(name, 0) for counted in counters.values()]
        if any(values):
            table.add_row(name, *(f"{value:,}" for value in values))
    return table
