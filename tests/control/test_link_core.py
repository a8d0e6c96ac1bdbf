"""The control link's machine: any order of connections, bytes and commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.ipc import (
    SCHEMA_VERSION,
    BridgeRepaired,
    BroadcastRoute,
    Connection,
    Delta,
    MessageReader,
    NeedSnapshot,
    OverlayEstablished,
    OverlayMessage,
    Peer,
    ReportRequest,
    RouterHello,
    Snapshot,
    UnicastRoute,
    decode_for_router,
    encode,
)
from control.link_core import (
    Action,
    BecameReady,
    Close,
    Happened,
    LinkCore,
    OverlayNews,
    ReportArrived,
    RouterJoined,
    RouterLost,
    Send,
)
from tests.control.fake_router import READY, report

STATE = Snapshot(seq=1, name=b"oneof6", nick="us")
HELLO = encode(RouterHello(SCHEMA_VERSION, 77, 1))


def _sent(actions: list[Action]) -> list[object]:
    """The messages that the actions write."""
    reader = MessageReader()
    bodies = [
        body for action in actions if isinstance(action, Send) for body in reader.feed(action.data)
    ]
    return [decode_for_router(body) for body in bodies]


def _connected() -> tuple[LinkCore, int]:
    core = LinkCore(STATE)
    session = core.open()
    core.receive(session, HELLO)
    return core, session


def test_a_session_counts_only_after_its_hello() -> None:
    core = LinkCore(STATE)
    session = core.open()
    assert core.router_pid is None
    assert core.replace(Snapshot(1, b"oneof6", "us", peers=(Peer(b"2ndof6", "x"),))) == []
    actions = core.receive(session, HELLO)
    (snapshot,) = _sent(actions)
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.seq, len(snapshot.peers)) == (2, 1)
    assert core.router_pid == 77


def test_deltas_are_numbered_without_a_gap() -> None:
    core, _ = _connected()
    for count in range(1, 4):
        peers = tuple(Peer(bytes([0, 0, 0, 0, 0, n]), "x") for n in range(count))
        (delta,) = _sent(core.replace(Snapshot(1, b"oneof6", "us", peers=peers)))
        assert isinstance(delta, Delta)
        assert delta.seq == 1 + count
    assert core.replace(core.snapshot) == []


def test_a_new_nickname_takes_a_snapshot_and_a_new_name_is_refused() -> None:
    core, _ = _connected()
    (snapshot,) = _sent(core.replace(Snapshot(1, b"oneof6", "renamed")))
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.seq, snapshot.nick) == (2, "renamed")
    with pytest.raises(ValueError, match="name of a running router"):
        core.replace(Snapshot(1, b"2ndof6", "us"))


def test_readiness_belongs_to_the_connection() -> None:
    core, session = _connected()
    assert core.receive(session, encode(READY)) == [BecameReady(77, READY)]
    assert (core.ready, core.router_pid) == (READY, 77)
    assert core.closed(session) == [RouterLost(77, was_ready=True)]
    assert (core.ready, core.router_pid) == (None, None)
    assert core.closed(session) == []


def test_the_newer_router_wins() -> None:
    core, old = _connected()
    core.receive(old, encode(READY))
    new = core.open()
    actions = core.receive(new, encode(RouterHello(SCHEMA_VERSION, 78, 2)))
    assert actions[:2] == [
        Close(old, "replaced by router with pid 78"),
        RouterLost(77, was_ready=True),
    ]
    assert isinstance(_sent(actions)[0], Snapshot)
    assert core.receive(old, encode(READY)) == []
    assert core.closed(old) == []
    assert core.router_pid == 78


def test_another_schema_is_refused_in_clear_words() -> None:
    core = LinkCore(STATE)
    session = core.open()
    (close,) = core.receive(session, encode(RouterHello(SCHEMA_VERSION + 1, 1, 1)))
    assert isinstance(close, Close)
    assert close.fault
    assert f"schema {SCHEMA_VERSION + 1}, control {SCHEMA_VERSION}" in close.reason
    assert "install the same release" in close.reason
    assert core.router_pid is None


def test_reports_and_requests() -> None:
    core, session = _connected()
    ident, actions = core.request_report(5)
    assert _sent(actions) == [ReportRequest(ident, 5)]
    assert core.receive(session, encode(report(ident))) == [ReportArrived(report(ident))]
    other, _ = core.request_report(5)
    assert other != ident
    core.closed(session)
    assert core.request_report(5)[1] == []


def test_events_and_snapshot_requests_may_share_a_chunk() -> None:
    core, session = _connected()
    repaired = BridgeRepaired("port was gone", 1)
    actions = core.receive(session, encode(repaired) + encode(NeedSnapshot(1, 3)))
    assert actions[0] == Happened(repaired)
    assert _sent(actions) == [STATE]


def test_a_second_hello_closes() -> None:
    core, session = _connected()
    actions = core.receive(session, HELLO)
    assert actions == [Close(session, "said hello twice", fault=True), RouterLost(77, False)]


def test_a_fresh_router_never_gets_keys_that_another_may_have_used() -> None:
    names = (b"2ndof6", b"3rdof6")
    sealed = Connection(names[0], "10.0.0.2", 6783, conn=1, cipher="secretbox", key=b"k" * 32)
    clear = Connection(names[1], "10.0.0.3", 6783, conn=2)
    core = LinkCore(
        Snapshot(
            seq=1,
            name=b"oneof6",
            nick="us",
            peers=tuple(Peer(name, "x") for name in names),
            connections=(sealed, clear),
            unicast=tuple(UnicastRoute(name, name) for name in names),
            broadcast=(BroadcastRoute(b"oneof6", names),),
        )
    )
    seen = []
    for instance in (1, 1, 2):
        session = core.open()
        *_, send, joined = core.receive(session, encode(RouterHello(SCHEMA_VERSION, 77, instance)))
        (snapshot,) = _sent([send])
        assert isinstance(snapshot, Snapshot)
        assert isinstance(joined, RouterJoined)
        seen.append((joined.fresh, snapshot.seq, snapshot.connections))
    both = (sealed, clear)
    assert seen == [(True, 1, both), (False, 1, both), (True, 2, (clear,))]
    assert core.snapshot.unicast == (UnicastRoute(names[1], names[1]),)
    assert core.snapshot.broadcast == (BroadcastRoute(b"oneof6", names[1:]),)


def test_the_sleeve_side_of_connections_speaks_both_ways() -> None:
    core, session = _connected()
    said = OverlayMessage(b"2ndof6", 3, 3, b"\x05\x9e")
    assert _sent(core.tell(said)) == [said]
    for news in (said, OverlayEstablished(b"2ndof6", 3)):
        assert core.receive(session, encode(news)) == [OverlayNews(news)]


def test_keys_are_not_shown() -> None:
    shown = repr(Connection(b"2ndof6", "10.0.0.2", 6783, cipher="secretbox", key=b"K" * 32))
    assert "KKK" not in shown
    assert "secretbox" in shown


@given(st.lists(st.binary(max_size=80), max_size=5), st.booleans())
def test_any_bytes_close_or_wait_and_never_raise(chunks: list[bytes], greeted: bool) -> None:
    core, session = _connected() if greeted else (LinkCore(STATE), 0)
    if not greeted:
        session = core.open()
    closed = False
    for chunk in chunks:
        actions = core.receive(session, chunk)
        assert not (closed and actions), "a closed session does nothing any more"
        closed = closed or any(isinstance(action, Close) for action in actions)
    if closed:
        assert core.router_pid is None


@given(st.integers(1, 50))
def test_byte_by_byte_is_the_same(step: int) -> None:
    stream = HELLO + encode(READY) + encode(NeedSnapshot(0, 0))
    whole, pieces = LinkCore(STATE), LinkCore(STATE)
    expected = whole.receive(whole.open(), stream)
    session = pieces.open()
    got: list[Action] = []
    for start in range(0, len(stream), step):
        got += pieces.receive(session, stream[start : start + step])
    assert got == expected
