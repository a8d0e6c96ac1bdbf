"""The life of one connection's datagram side, row by row of sleeve specification 7."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.forwarder import (
    ANSWERS_PER_S,
    FAST_HEARTBEAT_S,
    FRAG_TEST_S,
    FRAGMENTS_ACK,
    HEARTBEAT_ACK,
    MTU_ACK,
    SLOW_HEARTBEAT_S,
    TIMEOUT_S,
    Action,
    AskKernel,
    Established,
    Failed,
    Forwarder,
    SendSpecial,
    SetAddress,
    SetMtu,
    State,
    Tell,
)

UID = 0x1DD99DD11DD99DD1
PLAIN = 62
HEARTBEAT = SendSpecial(22, df=True, uid=UID)
FRAG_TEST = SendSpecial(60001, df=False)
PROBE = SendSpecial(60000, df=True)
HOME = ("192.0.2.7", 6783)


def _dialler(now: float = 0.0) -> Forwarder:
    forwarder = Forwarder(UID, PLAIN, now, addr=HOME[0], port=HOME[1])
    forwarder.take_actions()
    return forwarder


def _acceptor(now: float = 0.0) -> Forwarder:
    forwarder = Forwarder(UID, PLAIN, now)
    forwarder.take_actions()
    return forwarder


def _established(now: float = 0.0) -> Forwarder:
    forwarder = _dialler(now)
    forwarder.timeout(now)
    forwarder.heartbeat(UID, *HOME, now)
    forwarder.control(HEARTBEAT_ACK, b"", now)
    forwarder.take_actions()
    return forwarder


def _passed(forwarder: Forwarder, until: float) -> list[tuple[float, Action]]:
    """Let time pass; what came out, and when."""
    out: list[tuple[float, Action]] = []
    while (deadline := forwarder.deadline) is not None and deadline <= until:
        forwarder.timeout(deadline)
        out += [(deadline, action) for action in forwarder.take_actions()]
    return out


# --- confirmed, no address ---


def test_who_was_dialled_sends_nothing_before_it_hears_something() -> None:
    forwarder = _acceptor()
    assert forwarder.state is State.WAITING
    assert _passed(forwarder, TIMEOUT_S - 0.1) == []
    forwarder.control(HEARTBEAT_ACK, b"", 1.0)  # of nothing that we sent
    assert forwarder.state is State.WAITING
    assert forwarder.take_actions() == []


def test_the_first_heartbeat_shows_the_address_is_answered_and_acknowledged() -> None:
    forwarder = _acceptor()
    assert forwarder.heartbeat(UID, *HOME, 1.0)
    assert forwarder.state is State.PENDING
    assert forwarder.take_actions() == [SetAddress(*HOME), HEARTBEAT, Tell(HEARTBEAT_ACK)]
    assert forwarder.heartbeat(UID, *HOME, 1.5)
    assert forwarder.take_actions() == []  # one acknowledgement per connection


@pytest.mark.parametrize("make", [_acceptor, _dialler, _established])
def test_a_heartbeat_of_another_connection_is_ignored(make: object) -> None:
    assert callable(make)
    forwarder: Forwarder = make()
    before = (forwarder.state, forwarder.addr, forwarder.heard_at)
    assert not forwarder.heartbeat(UID ^ 1, "198.51.100.1", 9, 5.0)
    assert (forwarder.state, forwarder.addr, forwarder.heard_at) == before
    assert forwarder.take_actions() == []


# --- address known, not acknowledged ---


def test_the_dialler_beats_twice_a_second_until_it_is_acknowledged() -> None:
    forwarder = _dialler()
    assert _passed(forwarder, 2.0) == [(at / 2, HEARTBEAT) for at in range(5)]
    assert FAST_HEARTBEAT_S == 0.5
    forwarder.control(HEARTBEAT_ACK, b"", 2.1)
    assert forwarder.take_actions() == [Established(), FRAG_TEST, PROBE]
    assert forwarder.state is State.ESTABLISHED
    beats = [at for at, action in _passed(forwarder, 40.0) if action == HEARTBEAT]
    assert beats == pytest.approx([12.1, 22.1, 32.1])
    assert SLOW_HEARTBEAT_S == 10


def test_a_second_acknowledgement_tests_again_and_changes_no_state() -> None:
    forwarder = _established()
    forwarder.control(HEARTBEAT_ACK, b"", 3.0)
    assert forwarder.take_actions() == [FRAG_TEST, PROBE]


# --- established ---


def test_a_new_source_address_is_followed() -> None:
    forwarder = _established()
    forwarder.heartbeat(UID, "198.51.100.1", 1024, 3.0)
    assert forwarder.take_actions() == [SetAddress("198.51.100.1", 1024)]
    assert (forwarder.addr, forwarder.port) == ("198.51.100.1", 1024)


def test_fragments_are_used_once_they_are_known_to_get_through() -> None:
    forwarder = _established()
    mtu = forwarder.path.mtu
    forwarder.control(FRAGMENTS_ACK, b"", 1.0)
    assert forwarder.take_actions() == [SetMtu(mtu, True)]
    actions = [
        pair for pair in _passed_with_life(forwarder, FRAG_TEST_S + 1) if pair[1] != HEARTBEAT
    ]
    # between test and answer the careful way
    careful = [action for _, action in actions if not isinstance(action, AskKernel)]
    assert careful == [SetMtu(mtu, False), FRAG_TEST]
    assert actions[-1][0] == pytest.approx(FRAG_TEST_S, abs=SLOW_HEARTBEAT_S)


def _passed_with_life(forwarder: Forwarder, until: float) -> list[tuple[float, Action]]:
    """As _passed, with a neighbour that goes on beating and answers probes."""
    out: list[tuple[float, Action]] = []
    while (deadline := forwarder.deadline) is not None and deadline <= until:
        forwarder.heartbeat(UID, forwarder.addr, forwarder.port, deadline)
        forwarder.timeout(deadline)
        for action in forwarder.take_actions():
            if isinstance(action, SendSpecial) and action.df and action.uid is None:
                forwarder.control(MTU_ACK, (action.length - 14).to_bytes(2, "big"), deadline)
            else:
                out.append((deadline, action))
    return out


def test_fragments_are_tested_again_when_the_path_turns_out_narrower_than_believed() -> None:
    forwarder = _established()
    forwarder.refused(1500, 1.0)
    forwarder.control(MTU_ACK, (1438).to_bytes(2, "big"), 1.0)
    forwarder.control(FRAGMENTS_ACK, b"", 1.0)
    assert forwarder.take_actions()[-1] == SetMtu(1438, True)
    # the path has become one of 1000 bytes: what the kernel cuts by 1500 is lost
    now, sent = 1.0, list[Action]()
    while now < 40.0 and forwarder.stack_frag:
        actions = forwarder.take_actions()
        sent += actions
        for action in actions:
            if isinstance(action, SendSpecial) and action.df and action.length <= 1000 + 14:
                size = (action.length - 14).to_bytes(2, "big")
                forwarder.control(MTU_ACK, size, now)
        if not actions:
            assert forwarder.deadline is not None
            now = forwarder.deadline
            forwarder.timeout(now)
    assert FRAG_TEST not in sent
    assert forwarder.path.mtu == 1000
    assert forwarder.take_actions() == [SetMtu(1000, True), SetMtu(1000, False), FRAG_TEST]


def test_tests_of_the_neighbour_are_answered() -> None:
    forwarder = _established()
    forwarder.frag_test(True, 1.0)
    forwarder.frag_test(False, 1.0)  # not all of it zero: not answered
    forwarder.mtu_test(60000, 1.0)
    forwarder.mtu_test(1452, 1.0)
    assert forwarder.take_actions() == [
        Tell(FRAGMENTS_ACK),
        Tell(MTU_ACK, bytes.fromhex("ea52")),
        Tell(MTU_ACK, bytes.fromhex("059e")),
    ]


def test_a_flood_of_tests_is_not_answered_for_ever() -> None:
    forwarder = _established()
    for _ in range(500):
        forwarder.mtu_test(1452, 1.0)
        forwarder.frag_test(True, 1.0)
    assert len(forwarder.take_actions()) == ANSWERS_PER_S
    forwarder.mtu_test(1452, 2.1)
    assert len(forwarder.take_actions()) == 1


def test_the_path_mtu_is_searched_when_the_probe_is_refused() -> None:
    forwarder = _established()
    forwarder.refused(1500, 1.0)
    assert forwarder.take_actions() == [SetMtu(1438, False), SendSpecial(1452, df=True)]
    assert forwarder.degraded(1.0) == "searching for the path MTU"
    forwarder.control(MTU_ACK, b"\x05\x9e", 1.003)
    assert forwarder.take_actions() == []
    assert not forwarder.path.searching
    assert forwarder.rtt_s == pytest.approx(0.003)


def test_probes_measure_the_round_trip_unless_they_were_repeated() -> None:
    forwarder = _established()
    forwarder.refused(1500, 0.0)
    forwarder.control(MTU_ACK, b"\x05\x9e", 0.020)
    assert forwarder.rtt_s == pytest.approx(0.020)
    for number in range(1, 4):
        forwarder.heartbeat(UID, *HOME, number * 10.0)
        forwarder.timeout(number * 10.0)
        assert SendSpecial(1452, df=True) in forwarder.take_actions()
        forwarder.control(MTU_ACK, b"\x05\x9e", number * 10.0 + 0.004)
    assert forwarder.rtt_s == pytest.approx(0.004)
    forwarder.timeout(40.0)
    forwarder.timeout(41.0)  # the probe is repeated: nobody knows which of the two is answered
    forwarder.control(MTU_ACK, b"\x05\x9e", 41.001)
    assert forwarder.rtt_s == pytest.approx(0.004)


@pytest.mark.parametrize("data", [b"", b"\x05"])
def test_short_answers_are_ignored(data: bytes) -> None:
    forwarder = _established()
    forwarder.control(MTU_ACK, data, 1.0)
    forwarder.control(99, data, 1.0)
    assert forwarder.take_actions() == []


# --- the end ---


@pytest.mark.parametrize("make", [_acceptor, _dialler, _established])
def test_sixty_silent_seconds_end_it(make: object) -> None:
    assert callable(make)
    forwarder: Forwarder = make()
    events = _passed(forwarder, 100.0)
    assert events[-1] == (TIMEOUT_S, Failed("no heartbeat for 60 s"))
    assert forwarder.deadline is None
    assert not forwarder.heartbeat(UID, *HOME, 101.0)
    forwarder.control(HEARTBEAT_ACK, b"", 101.0)
    forwarder.timeout(200.0)
    assert forwarder.take_actions() == []


def test_each_heartbeat_gives_another_sixty_seconds() -> None:
    forwarder = _established()
    forwarder.heartbeat(UID, *HOME, 50.0)
    assert not [each for each in _passed(forwarder, 109.0) if isinstance(each[1], Failed)]
    assert "no heartbeat for" in forwarder.degraded(109.0)
    assert isinstance(_passed(forwarder, 110.0)[-1][1], Failed)


def test_a_refused_key_ends_it_once() -> None:
    forwarder = _dialler()
    forwarder.fail("the session key was used before")
    forwarder.fail("again")
    assert forwarder.take_actions() == [Failed("the session key was used before")]
    assert _passed(forwarder, 100.0) == []


# --- another router process ---


def test_a_complete_life_goes_on_under_another_process() -> None:
    forwarder = Forwarder(UID, PLAIN, 0.0, addr=HOME[0], port=HOME[1], established=True, acked=True)
    assert forwarder.take_actions()[1:] == [HEARTBEAT, Established(), FRAG_TEST, PROBE]
    forwarder.heartbeat(UID, *HOME, 1.0)
    assert forwarder.take_actions() == []  # it was acknowledged long ago


# --- what people are told ---


def test_why_it_is_degraded() -> None:
    acceptor = _acceptor()
    assert acceptor.degraded(1.0) == ""
    assert acceptor.degraded(6.0) == "no heartbeat has come: is UDP blocked?"
    acceptor.heartbeat(UID, *HOME, 6.0)
    assert "blocked one way" in acceptor.degraded(7.0)
    deaf = _dialler()
    deaf.control(HEARTBEAT_ACK, b"", 0.1)
    deaf.control(FRAGMENTS_ACK, b"", 0.2)
    assert deaf.state is State.ESTABLISHED
    assert deaf.degraded(6.0) == ""
    assert deaf.degraded(30.0) == "no heartbeat has come: is UDP blocked one way?"
    forwarder = _established()
    assert forwarder.degraded(1.0) == ""
    assert forwarder.degraded(6.0) == "IP fragments do not get through"
    forwarder.control(FRAGMENTS_ACK, b"", 6.0)
    assert forwarder.degraded(6.0) == ""
    assert forwarder.degraded(30.0) == "no heartbeat for 30 s"


# --- two of them ---


@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_two_lives_meet(lost: float) -> None:
    """A dialler and an acceptor with a network between them that loses every so many datagrams."""
    dialler, acceptor = _dialler(), _acceptor()
    homes = {dialler: ("192.0.2.1", 6783), acceptor: HOME}
    sent, now = 0, 0.0
    while now < 60:
        now = min(at for each in homes if (at := each.deadline) is not None)
        for each in homes:
            each.timeout(now)
        while moves := [(each, action) for each in homes for action in each.take_actions()]:
            for each, action in moves:
                other = acceptor if each is dialler else dialler
                if isinstance(action, Tell):
                    other.control(action.kind, action.data, now)
                elif isinstance(action, SendSpecial):
                    sent += 1
                    if (sent * 0.618) % 1 < lost:
                        continue
                    if action.length > 1452 and action.df:
                        each.refused(1500, now)
                    elif action.uid is not None:
                        other.heartbeat(action.uid, *homes[each], now)
                    elif not action.df:
                        other.frag_test(True, now)
                    else:
                        other.mtu_test(action.length, now)
    for each in homes:
        assert each.state is State.ESTABLISHED
        assert each.path.mtu == 1438
        assert each.acked
    assert (acceptor.addr, acceptor.port) == homes[dialler]


_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("heartbeat"),
            st.sampled_from((UID, 0)),
            st.sampled_from(("10.0.0.1", "10.0.0.2")),
        ),
        st.tuples(st.just("control"), st.integers(0, 255), st.binary(max_size=4)),
        st.tuples(st.just("frag"), st.booleans(), st.none()),
        st.tuples(st.just("mtu"), st.integers(14, 65535), st.none()),
        st.tuples(st.just("refused"), st.integers(68, 65535), st.none()),
        st.tuples(st.just("believed"), st.integers(68, 65535), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 30), st.none()),
    ),
    max_size=80,
)


@given(_STEPS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_nothing_that_a_neighbour_does_breaks_it(
    steps: list[tuple[str, object, object]], dials: bool
) -> None:
    forwarder = _dialler() if dials else _acceptor()
    now, acks, established = 0.0, 0, 0
    for what, one, two in steps:
        match what:
            case "heartbeat":
                forwarder.heartbeat(one, two, 6783, now)  # type: ignore[arg-type]
            case "control":
                forwarder.control(one, two, now)  # type: ignore[arg-type]
            case "frag":
                forwarder.frag_test(bool(one), now)
            case "mtu":
                forwarder.mtu_test(one, now)  # type: ignore[arg-type]
            case "refused":
                forwarder.refused(one, now)  # type: ignore[arg-type]
            case "believed":
                forwarder.believed(one, now)  # type: ignore[arg-type]
            case _:
                now += one  # type: ignore[operator]
                forwarder.timeout(now)
        for action in forwarder.take_actions():
            acks += action == Tell(HEARTBEAT_ACK)
            established += action == Established()
            if isinstance(action, SendSpecial):
                assert forwarder.addr
                assert (action.length == 22) is (action.uid is not None)
                assert (action.length == 60001) is (not action.df)
        assert forwarder.deadline is None or forwarder.state is not State.FAILED
    assert acks <= 1
    assert established <= 1
