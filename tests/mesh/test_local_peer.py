"""Which of two connections to one peer stays."""

from __future__ import annotations

import random

import pytest

from base.names import PeerName
from mesh.connection import Connection
from mesh.features import Features
from mesh.intro import Intro
from mesh.local_peer import LocalPeer
from mesh.peer import Peer
from mesh.peers import Peers

US = PeerName.from_int(1)


def _connection(ident: int, peer: Peer, uid: int) -> Connection:
    connection = Connection(
        ident,
        Intro(Features(US, "us", 1, ident), outbound=False),
        US,
        0.0,
        addr=f"192.0.2.2:{40000 + ident}",
        target=None,
        accept_new=True,
        conn_id=ident,
        trusts=False,
    )
    connection.peer = peer
    connection.uid = uid
    return connection


@pytest.mark.parametrize(
    ("new_uid", "displaces", "refused"), [(4, True, False), (6, False, True), (5, True, True)]
)
def test_tie_breaks(new_uid: int, displaces: bool, refused: bool) -> None:
    peers = Peers(Peer(US, "us", 1), random.Random(1))
    local = LocalPeer(peers, 0)
    two, _ = peers.acquire_or_add(Peer(PeerName.from_int(2), "two", 2))
    first = _connection(1, two, 5)
    assert local.judge(first) == (None, None, None)
    local.add(first)
    verdict = local.judge(_connection(2, two, new_uid))
    assert (verdict.displaced is first) == displaces
    assert (verdict.refused is not None) == refused
    text = f"Multiple connections to {two} added to {peers.ourself}"
    assert {verdict.refused, verdict.duplicate} - {None} == {text}


def test_every_step_raises_our_version() -> None:
    peers = Peers(Peer(US, "us", 1), random.Random(1))
    local = LocalPeer(peers, 1)
    two, _ = peers.acquire_or_add(Peer(PeerName.from_int(2), "two", 2))
    connection = _connection(1, two, 5)
    assert local.limit_reached() is None
    local.add(connection)
    assert local.limit_reached() == "Connection limit reached (1)"
    assert not peers.ourself.connections[two.name].established
    local.establish(connection)
    assert peers.ourself.connections[two.name].established
    local.remove(connection)
    assert (peers.ourself.version, len(local), dict(peers.ourself.connections)) == (3, 0, {})
