"""What stays in force when a control went away, whose, and for how long."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from base.ipc import BroadcastRoute, Connection, Delta, Peer, Snapshot, UnicastRoute
from native import lib
from router.grace import GRACE_S, PREFERRED_S, Grace, State
from tests.native.world import BROADCAST
from tests.router.test_peer_table import (
    P1,
    P2,
    P3,
    SNAPSHOT,
    US,
    Router,
    connection,
    name,
    peer,
)

P4 = name(4)
#: P1 is lost, and with it P3, which was behind it.
WITHOUT_P1 = {
    "connections_gone": (P1,),
    "unicast": (UnicastRoute(P2, P2),),
    "broadcast": (BroadcastRoute(US, (P2,)),),
}


def running() -> Router:
    """A router that knows containers 11 at P1, 22 at P2, 33 at P3."""
    router = Router()
    router.snapshot()
    assert router.receive(P1, P1, 11)
    assert router.receive(P2, P2, 22)
    assert router.receive(P1, P3, 33)
    return router


def flooded(router: Router) -> list[tuple[bytes | None, bytes]]:
    return sorted(router.send(BROADCAST), key=repr)


def deadline(router: Router) -> float | None:
    return router.table.deadline


BOTH = [(P1, P1), (P2, P2)]


def test_a_neighbour_whose_control_is_away_is_served() -> None:
    router = running()
    router.delta(cut=(P1,), peers_gone=(P1, P3), **WITHOUT_P1)
    for router.now in (0.0, PREFERRED_S, GRACE_S - 0.1):
        router.table.expire(router.now)
        assert router.send(11) == [(P1, P1)]
        assert router.send(33) == [(P1, P3)]
        assert flooded(router) == BOTH
        assert router.receive(P1, P3, 34)
    assert deadline(router) == GRACE_S
    router.table.expire(GRACE_S)
    assert deadline(router) is None
    assert router.table.neighbours.keys() == {P2}
    assert flooded(router) == [(P2, P2)]
    assert not router.receive(P1, P3, 34)


def test_a_connection_that_was_closed_is_gone_at_once() -> None:
    router = running()
    router.delta(peers_gone=(P1, P3), **WITHOUT_P1)
    assert router.table.neighbours.keys() == {P2}
    assert router.table.deadline is None


def test_a_way_round_is_taken_once_it_can_be_trusted() -> None:
    router = running()
    router.delta(
        cut=(P1,),
        connections_gone=(P1,),
        unicast=tuple(UnicastRoute(dst, P2) for dst in (P1, P2, P3)),
        broadcast=(BroadcastRoute(US, (P2,)),),
    )
    assert router.table.deadline == PREFERRED_S
    assert router.send(11) == [(P1, P1)], "the others may still take us for the way"
    assert router.send(33) == [(P2, P3)]
    assert flooded(router) == [(P2, P2)], "or P1 would get it twice"
    router.table.expire(PREFERRED_S)
    assert router.send(11) == [(P2, P1)]
    assert router.receive(P1, P1, 12), "it may not know the way round yet"


def test_a_new_connection_takes_the_place() -> None:
    router = running()
    router.delta(cut=(P1,), peers_gone=(P1, P3), **WITHOUT_P1)
    again = connection(P1, conn=9, addr="10.0.0.77")
    router.now = 1.0
    router.delta(peers=(peer(P1),), connections=(again,))
    assert router.table.neighbours[P1].connection == again
    assert router.send(11) == [(P1, P1)], "no route over it yet: by the old one"
    assert router.send(33) == [(P1, P3)]
    router.delta(peers=(peer(P3),), unicast=SNAPSHOT.unicast, broadcast=SNAPSHOT.broadcast)
    assert router.table.deadline is None
    assert flooded(router) == BOTH
    router.delta(peers_gone=(P1, P3), **WITHOUT_P1)
    assert router.table.neighbours.keys() == {P2}, "this one was closed"


def test_a_control_that_has_just_begun_takes_nothing_away() -> None:
    router = running()
    empty = Snapshot(seq=1, name=US, nick="us", young=True)
    assert router.snapshot(empty) == set()
    assert router.table.seq == 1
    assert router.send(11) == [(P1, P1)]
    assert flooded(router) == BOTH
    again = connection(P2, conn=9)
    router.delta(
        peers=(peer(P2),),
        connections=(again,),
        unicast=(UnicastRoute(P2, P2),),
        broadcast=(BroadcastRoute(US, (P2,)), BroadcastRoute(P2, ())),
    )
    assert router.table.neighbours[P2].connection == again
    assert flooded(router) == BOTH
    router.table.expire(GRACE_S)
    assert router.table.neighbours.keys() == {P2}
    assert router.send(33) == [(P2, P2)], "nobody knows where it is"


def test_an_older_control_is_taken_at_its_word() -> None:
    router = running()
    router.snapshot(Snapshot(seq=1, name=US, nick="us"))
    assert router.table.neighbours == {}


def test_another_name_begins_anew() -> None:
    router = running()
    router.snapshot(Snapshot(seq=1, name=P4, nick="us", young=True))
    assert router.table.neighbours == {}


def test_no_room_for_courtesies() -> None:
    router = running()
    many = [b"\1" + number.to_bytes(5, "big") for number in range(lib.WN_FORWARDERS_MAX - 2)]
    router.snapshot(
        Snapshot(
            seq=1,
            name=US,
            nick="us",
            peers=tuple(map(peer, many)),
            connections=tuple(Connection(one, "10.0.0.1", 1) for one in many),
            young=True,
        )
    )
    assert router.table.neighbours.keys() == {*many, P1, P2}
    router.delta(peers=(peer(P4),), connections=(connection(P4),))
    assert router.table.neighbours.keys() == {*many, P4}
    assert router.table.deadline is None


# ---- any history ----

NAMES = [name(number) for number in range(1, 6)]


@st.composite
def states(draw: st.DrawFn) -> State:
    """Something that control may say."""
    near = draw(st.sets(st.sampled_from(NAMES)))
    far = draw(st.sets(st.sampled_from(NAMES))) - near if near else set()
    hops = st.sampled_from(sorted(near)) if near else st.nothing()
    unicast = [UnicastRoute(dst, draw(hops)) for dst in sorted(near | far) if draw(st.booleans())]
    broadcast = [
        BroadcastRoute(src, tuple(sorted(draw(st.sets(hops)))) if near else ())
        for src in sorted(near | far | {US})
    ]
    return State(
        US,
        {one: Peer(one, "") for one in sorted(near | far | {US})},
        {one: connection(one, conn=draw(st.integers(1, 3))) for one in sorted(near)},
        tuple(unicast),
        tuple(broadcast),
    )


@given(st.lists(st.tuples(states(), st.booleans(), st.floats(0, 6)), min_size=1, max_size=8))
def test_what_is_in_force_is_whole_whatever_is_lost(
    history: list[tuple[State, bool, float]],
) -> None:
    router, now = Router(), 0.0
    router.snapshot(Snapshot(seq=1, name=US, nick=""))
    grace, in_force = Grace(), State(US, {US: Peer(US, "")}, {})
    for wanted, cut, passed_s in history:
        now += passed_s
        if cut:
            lost = in_force.connections.keys() - wanted.connections.keys()
            grace.keep(sorted(lost), in_force, now)
        in_force = grace.apply(wanted, now)
        # a table refuses what contradicts itself
        router.snapshot(
            Snapshot(
                seq=1,
                name=US,
                nick="",
                peers=tuple(in_force.known.values()),
                connections=tuple(in_force.connections.values()),
                unicast=in_force.unicast,
                broadcast=in_force.broadcast,
            )
        )
        assert wanted.connections.items() <= in_force.connections.items()
        assert {route.dst for route in wanted.unicast} <= {route.dst for route in in_force.unicast}
    assert grace.apply(wanted, now + GRACE_S) == wanted


def test_deltas_carry_what_was_cut() -> None:
    from control.diff import diff

    after = msgspec.structs.replace(
        SNAPSHOT, connections=SNAPSHOT.connections[1:], cut=(P1, P4), young=True
    )
    delta = diff(SNAPSHOT, after)
    assert delta == Delta(8, connections_gone=(P1,), cut=(P1,))
    assert diff(SNAPSHOT, msgspec.structs.replace(SNAPSHOT, young=True, cut=(P4,))) is None
