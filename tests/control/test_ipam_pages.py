"""Address allocation on pages: status, report and metrics in the original's words."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from base.names import PeerName
from control.api import metrics, report, status
from control.api.printable import json_text
from control.cli.render import print_report
from control.node import IpamView, NodeView
from ipam.address import Cidr
from ipam.status import EntryStatus, IpamStatus, PaxosStatus, PeerShare, State
from tests.control.views import THEM, US, node, sample

RANGE = Cidr.parse("10.32.0.0/16")
FRESH = IpamStatus(
    state=State.IDLE,
    text="idle",
    paxos=PaxosStatus(elector=True, known_nodes=0, quorum=0),
    range=RANGE,
    range_num_ips=65536,
    active_ips=0,
    default_subnet=RANGE,
    entries=(),
    shares=(),
    pending_claims=(),
    pending_allocates=(),
)
#: The two nodes of the vectors.
READY = replace(
    FRESH,
    state=State.RUNNING,
    text="ready",
    paxos=None,
    active_ips=1,
    entries=(
        EntryStatus(RANGE.addr, 32768, US, "host1", True, 1),
        EntryStatus(RANGE.addr + 32768, 32768, THEM, "host2", True, 0),
    ),
    shares=(
        PeerShare(US, "host1", 32768, True, True),
        PeerShare(THEM, "host2", 32768, True, False),
    ),
)


def seen(known: IpamStatus, **more: Any) -> NodeView:
    return node(ipam=IpamView(known, more.pop("counters", {}), 7, 1, **more))


def test_status_as_in_the_vectors() -> None:
    theirs = sample("/status")["body"]
    ours = status.summary(seen(READY))
    part = theirs[theirs.index("        Service: ipam") : theirs.index("        Service: dns")]
    assert ours.endswith("\n\n" + part.rstrip("\n") + "\n")
    assert status.ipam(seen(READY)) == sample("/status/ipam")["body"]


def test_report_as_in_the_vectors() -> None:
    theirs = json.loads(sample("/report", accept="application/json")["body"])
    ours = json.loads(json_text(report.build(seen(READY))))
    assert json.dumps(ours["IPAM"]) == json.dumps(theirs["IPAM"])
    assert [key for key in ours if key in theirs] == [key for key in theirs if key in ours]


def test_metrics_have_the_names_of_the_original() -> None:
    theirs = sample("/metrics")["body"]
    names = {
        line.split()[2]: line
        for line in theirs.splitlines()
        if line.startswith(("# HELP weave_ip", "# HELP weave_max"))
    }
    ours = metrics.exposition(seen(READY, counters={"odd message": 2})).decode()
    for line in names.values():
        assert line in ours.splitlines()
    assert 'weave_ips{state="local-used"} 1\n' in ours
    assert "weave_max_ips 65536\n" in ours
    assert 'weft_ipam_refused_total{reason="odd message"} 2\n' in ours
    assert "weft_ipam_owned_ips 32768\n" in ours


def test_without_allocation_nothing_is_said() -> None:
    view = node()
    assert status.ipam(view) is None
    assert report.ipam_shares(view) is None
    assert "IPAM" not in report.build(view)
    assert "IPAM" not in report.summary(view)
    assert "ipam" not in status.summary(view)
    assert "weave_ip" not in metrics.exposition(view).decode()


def test_peers_that_are_gone() -> None:
    shares = (
        PeerShare(US, "host1", 65536 - 3000, True, True),
        PeerShare(THEM, "\x1b[31m", 3000, False, False),
    )
    view = seen(replace(READY, shares=shares))
    assert status.ipam(view) == (
        "ce:01:00:00:00:01(host1)                 62536 IPs (95.4% of total) (1 active)\n"
        "ce:02:00:00:00:02(\\x1b[31m)               3000 IPs (04.6% of total) - unreachable!\n"
    )
    text = metrics.exposition(view).decode()
    assert "weave_ipam_unreachable_count 1\n" in text
    assert "weave_ipam_unreachable_percentage 4.57763671875\n" in text


def test_who_has_voted_and_who_has_not() -> None:
    votes = "by ce:01:00:00:00:01(\x1b[31m); 1 more peer expected, not connected"
    paxos = PaxosStatus(True, 1, 2, (US,), (), 1, votes)
    text = "awaiting consensus (quorum: 2, known: 1)"
    view = seen(replace(FRESH, state=State.ELECTING, text=text, paxos=paxos))
    assert (
        "         Status: awaiting consensus (quorum: 2, known: 1)\n"
        "          Votes: by ce:01:00:00:00:01(\\x1b[31m); 1 more peer expected, not connected\n"
        "          Range: 10.32.0.0/16\n"
    ) in status.summary(view)
    assert report.summary(view)["IPAM"]["Votes"] == votes
    assert "Votes" not in status.summary(seen(FRESH))
    assert report.summary(seen(READY))["IPAM"]["Votes"] is None


def test_what_an_operator_should_read() -> None:
    view = seen(replace(READY, conflicts=("10.32.0.5 is c1's",)), trouble="disk is full")
    for line in ("addresses cannot be recorded: disk is full", "10.32.0.5 is c1's"):
        assert f"        Warning: {line}\n" in status.summary(view)
        assert line in report.build(view)["Warnings"]


@pytest.mark.parametrize(
    ("known", "ready"),
    [
        (FRESH, True),
        (READY, True),
        (replace(FRESH, state=State.ELECTING), True),
        (replace(FRESH, state=State.ELECTING, pending_allocates=(("c", RANGE),)), False),
        (replace(FRESH, state=State.ELECTING, pending_claims=(("c", RANGE),)), False),
        (replace(READY, state=State.WAITING, pending_allocates=(("c", RANGE),)), True),
    ],
)
def test_ready_unless_somebody_waits_for_a_vote(known: IpamStatus, ready: bool) -> None:
    assert seen(known).is_ready is ready
    assert node(up=False).is_ready is False


def test_what_is_pending() -> None:
    known = replace(
        FRESH,
        pending_allocates=(("c1", RANGE),),
        pending_claims=(("c2", Cidr.parse("10.32.0.9/16")),),
    )
    found = report.build(seen(known))["IPAM"]
    assert found["PendingAllocates"] == ["c1 10.32.0.0/16"]
    assert found["PendingClaims"] == [
        {"Ident": "c2", "CIDR": {"Addr": "10.32.0.9", "PrefixLen": 16}}
    ]


def test_an_election_shows_once_it_is_wanted() -> None:
    def shown(state: State) -> Any:
        return json.loads(json_text(report.build(seen(replace(FRESH, state=state)))))["IPAM"]

    assert shown(State.IDLE)["Paxos"] is None
    assert shown(State.ELECTING)["Paxos"] == {"Elector": True, "KnownNodes": 0, "Quorum": 0}


def test_the_report_for_people() -> None:
    text = StringIO()
    entries = (*READY.entries, replace(READY.entries[1], is_known=False, nick="\x1b[0m"))
    print_report(report.build(seen(replace(READY, entries=entries))), Console(file=text, width=100))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    at = lines.index("Addresses of 10.32.0.0/16, 1 in use here")
    assert lines[at + 2 : at + 5] == [
        "ce:01:00:00:00:01(host1) 32768",
        "ce:02:00:00:00:02(\\x1b[0m) 32768 unreachable",
        "ce:02:00:00:00:02(host2) 32768",
    ]


@given(st.text(max_size=20), st.binary(min_size=6, max_size=6), st.text(max_size=20))
def test_any_text_of_others(nick: str, name: bytes, ident: str) -> None:
    shares = (PeerShare(PeerName(name), nick, 1, False, False),)
    view = seen(replace(READY, shares=shares, pending_allocates=((ident, RANGE),)))
    page = status.ipam(view)
    assert page is not None
    assert page.count("\n") == 1
    assert page[:-1].isprintable()
