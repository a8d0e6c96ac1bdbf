"""A living namesake is told from an earlier incarnation of ourselves."""

from __future__ import annotations

import math
import random

from base import gob
from base.names import PeerName
from mesh import events
from mesh.core import MeshCore, MeshOptions
from mesh.features import Features
from mesh.framing import frame
from mesh.intro import encode_header
from mesh.namesakes import GROWTHS, SETTLED_S, Namesakes, Twins
from mesh.protocol import Envelope, Tag, encode_envelope
from mesh.topology import CHANNEL

UID = 77


def test_the_past_may_grow_while_it_comes_in() -> None:
    namesakes = Namesakes()
    assert not any(namesakes.heard(UID, version, 0.1 * version) for version in range(1, 20))
    # late, and again, but never newer
    assert not any(namesakes.heard(UID, version, 100.0) for version in range(1, 20))


def test_who_goes_on_growing_is_alive() -> None:
    namesakes = Namesakes()
    assert not namesakes.heard(UID, 1, 0.0)
    told = [namesakes.heard(UID, 2 + step, SETTLED_S + step) for step in range(10)]
    assert told == [step == GROWTHS - 1 for step in range(10)]  # once


def test_incarnations_are_told_apart_and_bounded() -> None:
    namesakes = Namesakes()
    for uid in range(10_000):
        assert not namesakes.heard(uid, 1, 0.0)
    assert not namesakes.heard(1, 2, 10.0)
    assert not namesakes.heard(2, 2, 10.0)
    assert namesakes.heard(1, 3, 11.0)


NAME = PeerName.parse("ce:02:00:00:00:02")


def never(_: int) -> float:
    """Nothing is heard from anybody."""
    return -math.inf


def test_a_restarted_router_is_no_twin() -> None:
    twins = Twins()
    for at, uid in enumerate([1, 1, 2, 2, 2, 3]):
        assert twins.introduced(NAME, uid, f"192.0.2.{uid}:1", float(at), never) is None


def test_who_comes_back_was_never_gone() -> None:
    twins = Twins()
    assert twins.introduced(NAME, 1, "192.0.2.1:1", 0.0, never) is None
    assert twins.introduced(NAME, 2, "192.0.2.2:1", 1.0, never) is None
    assert twins.introduced(NAME, 1, "192.0.2.1:2", 2.0, never) == "192.0.2.2:1"
    assert twins.introduced(NAME, 2, "192.0.2.2:2", 3.0, lambda _: 2.5) == "192.0.2.1:2"


def test_who_is_heard_after_another_spoke_is_alive() -> None:
    twins = Twins()
    assert twins.introduced(NAME, 1, "192.0.2.1:1", 0.0, never) is None
    assert twins.introduced(NAME, 2, "192.0.2.2:1", 10.0, lambda _: 9.0) is None
    assert twins.introduced(NAME, 2, "192.0.2.2:2", 20.0, lambda _: 9.0) is None
    assert twins.introduced(NAME, 2, "192.0.2.2:3", 40.0, lambda _: 30.0) == "192.0.2.1:1"


def test_other_names_are_other_routers_and_bounded() -> None:
    twins = Twins()
    for number in range(1, 5000):
        name = PeerName.from_int(number)
        assert twins.introduced(name, number, "192.0.2.1:1", 0.0, lambda _: 1.0) is None


def test_two_routers_with_one_name_learn_it_by_gossip() -> None:
    """Both are connected to others only, never to each other."""
    neighbour = PeerName.parse("ce:01:00:00:00:01")
    ends = [_connected(NAME, nick, uid, neighbour) for nick, uid in (("one", 1), ("other", 2))]
    told: list[events.NameCollision] = []
    for second in range(30):
        for (core, ident), (other, _) in (ends, ends[::-1]):
            update = encode_envelope(Envelope(CHANNEL, neighbour, other.peers.encode([NAME])))
            core.receive(ident, frame(bytes((Tag.GOSSIP,)) + update), float(second))
            told += [each for each in core.take_events() if isinstance(each, events.NameCollision)]
    assert {each.peer for each in told} == {NAME}
    assert sorted(each.nick for each in told) == ["one", "other"]
    assert {each.addr for each in told} == {""}


def _connected(name: PeerName, nick: str, uid: int, neighbour: PeerName) -> tuple[MeshCore, int]:
    core = MeshCore(MeshOptions(name, nick, uid), 0.0, random.Random(uid))
    ident = core.accepted("192.0.2.1:40000", 0.0)
    features = Features(neighbour, "neighbour", 9, 9, 9, False, ("sleeve",))
    core.receive(ident, encode_header(2, 2) + b"\0", 0.0)
    core.receive(ident, frame(gob.string_map_stream(features.to_map())), 0.0)
    return core, ident
