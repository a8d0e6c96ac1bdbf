"""Version 1 of the protocol: who speaks it, with whom, and what a connection is like then."""

from __future__ import annotations

import random

import pytest

from base.names import PeerName
from mesh import events
from mesh.connection import ConnectionState
from mesh.core import MeshCore, MeshOptions
from mesh.features import Features
from mesh.intro import OTHER_PASSWORD, Intro, IntroDone, encode_header
from mesh.protocol import Tag, decode_envelope
from mesh.topology import CHANNEL, decode_update

US, THEM = PeerName.parse("ce:01:00:00:00:01"), PeerName.parse("ce:02:00:00:00:02")
NOW = 100.0


def _core(password: bytes | None = None, version_min: int | None = None) -> MeshCore:
    options = MeshOptions(US, "us", 1, password=password, version_min=version_min)
    return MeshCore(options, NOW, random.Random(1))


def _old(password: bytes | None = None, *, outbound: bool = True) -> Intro:
    """A router that knows version 1 alone."""
    theirs = Features(THEM, "them", 2, 3, short_id=77, overlays=("sleeve",))
    return Intro(theirs, outbound=outbound, password=password, versions=(1, 1))


def _introduce(core: MeshCore, old: Intro) -> tuple[int, IntroDone | None]:
    ident = core.accepted("10.0.0.2:40000", NOW)
    core.receive(ident, old.bytes_to_send(), NOW)
    done = old.receive(core.bytes_to_send(ident, NOW))
    core.receive(ident, old.bytes_to_send(), NOW)
    if done is None and core.connections():
        done = old.receive(core.bytes_to_send(ident, NOW))
    return ident, done


@pytest.mark.parametrize(
    ("password", "version_min", "versions"),
    [
        (None, None, (1, 2)),
        (b"p", None, (2, 2)),
        (None, 2, (2, 2)),
        (b"p", 1, (1, 2)),
        (b"p", 2, (2, 2)),
    ],
)
def test_which_versions_are_offered(
    password: bytes | None, version_min: int | None, versions: tuple[int, int]
) -> None:
    core = _core(password, version_min)
    ident = core.accepted("10.0.0.2:40000", NOW)
    assert core.options.versions == versions
    assert core.bytes_to_send(ident, NOW) == encode_header(*versions)


@pytest.mark.parametrize("password", [None, b"p"])
def test_a_connection_of_version_1(password: bytes | None) -> None:
    core = _core(password, 1)
    ident, done = _introduce(core, _old(password))
    assert done is not None
    added = next(e for e in core.take_events() if isinstance(e, events.ConnectionAdded))
    assert (added.peer, added.compatible, added.overlays) == (THEM, True, ("sleeve",))
    assert added.encrypted == (password is not None)
    assert (added.transcript, added.features) == (b"", ())
    peer = core.peers.get(THEM)
    assert peer is not None
    assert peer.short_id is None, "version 1 does not tell it"
    # control messages have the overlay's tag for theirs
    core.send_overlay_control(ident, "sleeve", 1, b"", NOW)
    core.send_overlay_control(ident, "sleeve", 3, b"\x05\x9e", NOW)
    core.timeout(NOW + 31)
    done.frames.feed(core.bytes_to_send(ident, NOW + 31))
    said = [done.opener.open(body) for body in iter(done.frames.next_body, None)]
    assert said[:2] == [b"\1", b"\3\x05\x9e"]
    assert bytes([Tag.HEARTBEAT]) in said
    gossip = [decode_envelope(m[0], m[1:]) for m in said if m[0] == Tag.GOSSIP]
    told = {r.name for each in gossip if each.channel == CHANNEL for r in decode_update(each.data)}
    assert US in told
    # and so have theirs, which come in any pieces
    wire = b"".join(done.frame(done.sealer.seal(m)) for m in (b"\0", b"\1", b"\3\x05\x9e"))
    for position in range(len(wire)):
        core.receive(ident, wire[position : position + 1], NOW + 31)
    control = [e for e in core.take_events() if isinstance(e, events.OverlayControl)]
    assert [(e.overlay, e.kind, e.data) for e in control] == [
        ("sleeve", 1, b""),
        ("sleeve", 3, b"\x05\x9e"),
    ]
    core.overlay_established(ident, NOW + 31)
    (connection,) = core.connections()
    assert connection.state is ConnectionState.ESTABLISHED


def test_with_a_password_version_1_has_to_be_asked_for() -> None:
    core = _core(b"p")
    assert _introduce(core, _old(b"p"))[1] is None
    (close,) = [e for e in core.take_events() if isinstance(e, events.Close)]
    assert close.reason == (
        "remote version range [1,1] is incompatible with ours [2,2] "
        "(--min-protocol-version 1 lets that peer in)"
    )


def test_another_password_shows_with_the_first_message() -> None:
    core = _core(b"p", 1)
    ident, done = _introduce(core, _old(b"another"))
    assert done is not None
    core.receive(ident, done.frame(done.sealer.seal(b"\0")), NOW)
    found = core.take_events()
    (close,) = [e for e in found if isinstance(e, events.Close)]
    assert close.reason == OTHER_PASSWORD
    assert any(isinstance(e, events.StrangerRefused) for e in found)
    assert core.connections() == []


def test_junk_instead_of_messages_closes() -> None:
    core = _core(None)
    ident, done = _introduce(core, _old())
    assert done is not None
    core.receive(ident, b"\x03\x0c\x00\x00", NOW)  # a string
    assert any(isinstance(e, events.Close) for e in core.take_events())
