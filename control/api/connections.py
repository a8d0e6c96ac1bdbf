"""Our connections and targets: what control and router know of each, as status and report show it.

Source of truth: node specification 11, vectors ``http_api_samples.json``; the words of Info are
those of Weave Net 2.8.1 mesh/status.go, newLocalConnectionStatusSlice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from base.ipc import Connection, ForwarderReport, RouterReport
from base.names import format_peer
from control.api.template import OpenMap
from control.node import ConnectionView, NodeView

#: In the order of the summary; the original does not count the last.
STATES: Final = ("established", "pending", "retrying", "failed", "connecting", "waiting")


@dataclass(slots=True, frozen=True)
class OwnConnection:
    """One line of ``weft status connections``.

    ``mtu`` (overlay), ``pmtu_bytes`` (underlay) in bytes, ``rtt_us``: 0 when not known; ``cipher``
    "none" in clear; ``degraded`` "" when nothing is.
    """

    view: ConnectionView
    info: str
    retry_at_s: float | None
    mtu: int = 0
    pmtu_bytes: int = 0
    cipher: str = "none"
    rtt_us: int = 0
    degraded: str = ""

    @property
    def is_target(self) -> bool:
        """True for an address that we are not connected at."""
        return self.view.peer is None


def own_connections(view: NodeView) -> list[OwnConnection]:
    """Connections and targets, in the order of the membership."""
    forwarders = forwarders_by_peer(view.report)
    wanted = {connection.peer: connection for connection in view.snapshot.connections}
    return [
        _target(each, view.now_s) if each.peer is None else _live(each, view, forwarders, wanted)
        for each in view.membership.connections
    ]


def forwarders_by_peer(report: RouterReport | None) -> dict[bytes, ForwarderReport]:
    """The router's side of each connection; empty without a report."""
    return {each.peer: each for each in (report.forwarders if report else ())}


def _live(
    each: ConnectionView,
    view: NodeView,
    forwarders: Mapping[bytes, ForwarderReport],
    wanted: Mapping[bytes, Connection],
) -> OwnConnection:
    if each.peer is None:
        raise AssertionError("a target has no live side")
    peer = each.peer.octets
    info = f"{each.overlay:<6} {format_peer(each.peer, each.nick)}"
    if each.sealed is not None:
        info = f"{'encrypted' if each.sealed else 'unencrypted':<11} {info}"
    if (forwarder := forwarders.get(peer)) is not None:
        return OwnConnection(
            each,
            info,
            None,
            mtu=forwarder.mtu,
            pmtu_bytes=forwarder.pmtu_bytes,
            cipher=forwarder.cipher,
            rtt_us=forwarder.rtt_us,
            degraded=forwarder.degraded,
        )
    asked = wanted.get(peer)
    cipher = "none" if asked is None else asked.cipher
    if (path := view.path_mtus.get(peer)) is not None:
        return OwnConnection(each, info, None, path.mtu, path.pmtu_bytes, cipher)
    return OwnConnection(each, info, None, mtu=0 if asked is None else asked.mtu, cipher=cipher)


def _target(each: ConnectionView, now_s: float) -> OwnConnection:
    retry_at_s = None if each.retry_in_s is None else now_s + each.retry_in_s
    when = "never" if retry_at_s is None else go_time(retry_at_s)
    error = each.error or ""
    match each.state:
        case "failed":
            info = f"{error}, retry: {when}"
        case "waiting":
            info = f"until: {when}"
        case _:
            info = error
    return OwnConnection(each, info, retry_at_s)


def record(each: OwnConnection) -> dict[str, Any]:
    """For JSON: the original's five keys, then ours; null where there is nothing to say."""
    view = each.view
    common = {
        "Address": view.address,
        "Outbound": view.outbound,
        "State": view.state,
        "Info": each.info,
    }
    if view.peer is None:
        retry_at = None if each.retry_at_s is None else rfc3339(each.retry_at_s)
        return (
            common
            | {"Attrs": None}
            | dict.fromkeys(("Name", "NickName", "Overlay", "Encrypted", "Cipher", "MTU"))
            | {"PathMTU": None, "RTTMilliseconds": None, "Degraded": None}
            | {"Error": view.error, "RetryAt": retry_at}
        )
    attrs = {"encrypted": True} if view.sealed else {}
    return common | {
        "Attrs": OpenMap(**attrs, mtu=each.mtu, name=view.overlay),
        "Name": str(view.peer),
        "NickName": view.nick,
        "Overlay": view.overlay,
        "Encrypted": bool(view.sealed),
        "Cipher": each.cipher,
        "MTU": each.mtu or None,
        "PathMTU": each.pmtu_bytes or None,
        "RTTMilliseconds": each.rtt_us / 1000 if each.rtt_us else None,
        "Degraded": each.degraded or None,
        "Error": None,
        "RetryAt": None,
    }


def peer_states(view: NodeView) -> list[str]:
    """State of every connection that any peer reports; each counts at both its ends."""
    return [
        "established" if link.established else "pending"
        for peer in view.membership.peers
        for link in peer.connections
    ]


def count_states(states: Iterable[str]) -> str:
    """``2 established, 1 failed``: those that occur, in the order of STATES."""
    found = list(states)
    counts = ((state, found.count(state)) for state in STATES)
    return ", ".join(f"{count} {state}" for state, count in counts if count)


def go_time(moment_s: float) -> str:
    """A moment as the original prints it, to the second: ``2026-11-22 20:23:10 +0000 UTC``."""
    return f"{_moment(moment_s):%Y-%m-%d %H:%M:%S} +0000 UTC"


def rfc3339(moment_s: float) -> str:
    """A moment (s since 1970) as ``2026-11-22T20:23:10Z``."""
    return f"{_moment(moment_s):%Y-%m-%dT%H:%M:%SZ}"


def _moment(moment_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(moment_s), tz=dt.UTC)
