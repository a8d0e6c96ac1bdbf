"""Introductions: every recorded session from both sides, and what may go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base import gob
from base.errors import CryptoError, PasswordMismatchError, RemoteProtocolError
from crypto.ciphers import FEATURE
from crypto.handshake import KeyPair
from mesh.features import Features
from mesh.intro import FEATURES_LEN_MAX, Intro, IntroDone, IntroState, choose_version, encode_header
from tests.golden import load

VECTORS = load("handshake")
SESSIONS = VECTORS["sessions"]
SIDES = ("outbound", "inbound")
OTHER = {"outbound": "inbound", "inbound": "outbound"}


def _intro(session: dict[str, Any], side: str) -> Intro:
    mine = session[f"{side}_side"]
    private = mine.get("private_key")
    return Intro(
        Features.from_map(mine["features_sent"]),
        outbound=side == "outbound",
        password=mine["password"].encode() if mine["password"] else None,
        keys=KeyPair.from_private(bytes.fromhex(private)) if private else None,
        versions=(mine["min_version"], mine["max_version"]),
    )


def _run(intro: Intro, received: bytes, step: int) -> tuple[IntroDone | None, bytes, str | None]:
    """Feed ``received`` in pieces: result, bytes sent, error text."""
    sent = intro.bytes_to_send()
    try:
        for position in range(0, len(received), step):
            done = intro.receive(received[position : position + step])
            sent += intro.bytes_to_send()
            if done is not None:
                done.frames.feed(received[position + step :])
                return done, sent, None
    except (RemoteProtocolError, CryptoError) as err:
        return None, sent + intro.bytes_to_send(), str(err)
    return None, sent, str(intro.end_of_stream())


PLAYED = [
    pytest.param(session, side, id=f"{session['name']}-{side}")
    for session in SESSIONS
    for side in SIDES
]


def test_both_versions_are_played() -> None:
    versions = Counter(s[f"{side}_side"]["negotiated_version"] for s in SESSIONS for side in SIDES)
    assert versions[1] >= 6
    assert versions[2] >= 6


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(("session", "side"), PLAYED)
def test_recorded_sessions(session: dict[str, Any], side: str, step: int) -> None:
    mine = session[f"{side}_side"]
    theirs = [bytes.fromhex(write) for write in session["intro_writes"][OTHER[side]]]
    if mine["error"] is not None and ("EOF" in mine["error"] or "reset" in mine["error"]):
        # the other end's reset overtook its last write; had it not, we would have refused that
        done, sent, error = _run(_intro(session, side), b"".join(theirs[:-1]), step)
        assert done is None
        assert error is not None
        assert "EOF" in error
        assert _run(_intro(session, side), b"".join(theirs), step)[0] is None
        return
    done, sent, error = _run(_intro(session, side), b"".join(theirs), step)
    _compare_sent(session, side, sent)
    if mine["error"] is not None:
        assert done is None
        assert error is not None
        assert error.startswith(mine["error"])
        return
    assert error is None
    assert done is not None
    assert done.features == Features.from_map(mine["features_received"])
    assert (done.key.hex() if done.key else None) == mine.get("session_key")
    _read_messages(session, side, done)


def _compare_sent(session: dict[str, Any], side: str, sent: bytes) -> None:
    """Byte for byte where the original's are not random; feature maps by what they say."""
    header, *more = [bytes.fromhex(write) for write in session["intro_writes"][side]]
    assert sent.startswith(header)
    if session[f"{side}_side"]["negotiated_version"] == 1:
        ours, theirs = gob.Decoder(sent[len(header) :]), gob.Decoder(b"".join(more))
        assert ours.next() == theirs.next()
        assert ours.position == len(sent) - len(header)
    elif more:
        assert sent[len(header) :].startswith(more[0])


def _read_messages(session: dict[str, Any], side: str, done: IntroDone) -> None:
    """Messages after the introduction: theirs are read, ours are written, byte for byte."""
    for message in session["messages_after_intro"]:
        plain = bytes([message["tag"]]) + bytes.fromhex(message["payload"])
        if message["from"] == side:
            assert done.frame(done.sealer.seal(plain)).hex() == message["wire"]
        else:
            done.frames.feed(bytes.fromhex(message["wire"]))
            body = done.frames.next_body()
            assert body is not None
            assert done.opener.open(body) == plain


def test_errors_are_all_recorded() -> None:
    errors = {side["error"] for s in SESSIONS for side in (s["outbound_side"], s["inbound_side"])}
    assert len(errors) >= 7


def _ends(password: bytes | None, version: int = 2) -> dict[str, Intro]:
    """Two introductions that are to meet, each with an offer of ours among its features."""
    session = SESSIONS[0]
    return {
        side: Intro(
            Features.from_map(session[f"{side}_side"]["features_sent"] | {FEATURE: "aes-256-gcm"}),
            outbound=side == "outbound",
            password=password,
            versions=(version, version),
        )
        for side in SIDES
    }


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("encrypted", [False, True])
def test_our_two_ends_agree(encrypted: bool, version: int) -> None:
    ends = _ends(b"p" if encrypted else None, version)
    results: dict[str, IntroDone] = {}
    while len(results) < 2:
        for side in SIDES:
            if (done := ends[OTHER[side]].receive(ends[side].bytes_to_send())) is not None:
                results[OTHER[side]] = done
    out, inward = results["outbound"], results["inbound"]
    assert out.key == inward.key
    assert (out.key is not None) == encrypted
    assert inward.opener.open(out.sealer.seal(b"x")) == b"x"
    assert out.opener.open(inward.sealer.seal(b"y")) == b"y"
    assert inward.features.extra == ({FEATURE: "aes-256-gcm"} if version > 1 else {})
    assert bool(out.transcript) == (encrypted and version > 1)
    assert out.transcript == inward.transcript
    inward.frames.feed(out.frame(b"z" * 1_000_000))
    assert inward.frames.next_body() == b"z" * 1_000_000
    assert ends["outbound"].state is IntroState.DONE


def _through(ends: dict[str, Intro], liar: str, change: Callable[[bytearray], None]) -> list[Any]:
    """Results of both ends when what ``liar`` sends is changed on its way; None where it failed."""
    results: dict[str, IntroDone | None] = {}
    position = 0
    for _ in range(4):
        for side in SIDES:
            sent = bytearray(ends[side].bytes_to_send())
            if side == liar:
                whole = bytearray(position) + sent
                change(whole)
                position, sent = len(whole), whole[position:]
            if OTHER[side] in results:
                continue
            try:
                done = ends[OTHER[side]].receive(bytes(sent))
            except (RemoteProtocolError, CryptoError):
                results[OTHER[side]] = None
            else:
                if done is not None:
                    results[OTHER[side]] = done
    return [results.get(side) for side in SIDES]


@pytest.mark.parametrize("liar", SIDES)
def test_nobody_in_the_middle_changes_what_was_agreed(liar: str) -> None:
    """Whatever bit is changed on the way: no result, or the one that both ends meant."""
    lengths: list[int] = []
    untouched = _through(_ends(b"p"), liar, lambda data: lengths.append(len(data)))
    assert None not in untouched
    for at, mask in product(range(lengths[-1]), (0x01, 0x80)):

        def flip(data: bytearray, at: int = at, mask: int = mask) -> None:
            if at < len(data):
                data[at] ^= mask

        both = _through(_ends(b"p"), liar, flip)
        if None in both:
            continue
        out, inward = both
        if at == 7 + 32:  # X25519 takes no notice of a point's last bit
            assert out.transcript != inward.transcript
            continue
        assert at in (5, 6), "only the range of versions may be told differently"
        assert (out.key, out.transcript) == (inward.key, inward.transcript)
        assert out.features.extra == inward.features.extra == {FEATURE: "aes-256-gcm"}


@pytest.mark.parametrize(
    "vector", VECTORS["version_negotiation"], ids=lambda v: str(v["their_header"])
)
def test_versions(vector: dict[str, Any]) -> None:
    ours = (vector["our_min"], vector["our_max"])
    header = bytes.fromhex(vector["their_header"])
    if vector["error"] is None:
        assert choose_version(ours, header) == vector["version"]
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            choose_version(ours, header)
        assert str(caught.value).startswith(vector["error"])


@pytest.mark.parametrize("vector", VECTORS["bad_headers"], ids=lambda v: v["error"][:40])
def test_bad_headers(vector: dict[str, Any]) -> None:
    intro = _intro(SESSIONS[0], "outbound")
    received = bytes.fromhex(vector["bytes_received_then_close"])
    assert _run(intro, received, 1)[2] == vector["error"]


def test_other_password_is_named() -> None:
    session = next(session for session in SESSIONS if session["name"] == "wrong_password")
    intro = _intro(session, "inbound")
    theirs = b"".join(map(bytes.fromhex, session["intro_writes"]["outbound"]))
    with pytest.raises(PasswordMismatchError, match="other password"):
        intro.receive(theirs)


def test_a_stranger_cannot_make_us_hold_much() -> None:
    intro = _intro(SESSIONS[0], "inbound")
    with pytest.raises(RemoteProtocolError, match="exceeds maximum size"):
        intro.receive(encode_header(2, 2) + b"\0" + (FEATURES_LEN_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", "PublicKey is no key"),
        ("00" * 31, "PublicKey is no key"),
        (" " + "00" * 31 + " ", "PublicKey is no key"),
        ("00" * 32, "low order"),
    ],
)
def test_keys_of_version_1(key: str, error: str) -> None:
    intro = _intro(next(s for s in SESSIONS if s["name"] == "v1_encrypted"), "inbound")
    stream = gob.string_map_stream(GOOD | {"PublicKey": key})
    with pytest.raises(RemoteProtocolError, match=error):
        intro.receive(encode_header(1, 2) + stream)


def test_a_stranger_of_version_1_cannot_make_us_hold_much() -> None:
    for stream in (
        gob.encode_uint(FEATURES_LEN_MAX + 100),
        b"".join(gob.define_slice(65 + n, gob.INT, "x" * 30_000) for n in range(3)),
        b"\xf0",
        gob.bytes_value(b"no map"),
    ):
        intro = _intro(SESSIONS[0], "inbound")
        with pytest.raises(RemoteProtocolError):
            intro.receive(encode_header(1, 1) + stream)


def test_our_own_key_sent_back_is_refused() -> None:
    intro = _intro(next(s for s in SESSIONS if s["name"] == "v2_encrypted"), "outbound")
    intro.receive(encode_header(2, 2))
    ours = intro.bytes_to_send()[7:]
    with pytest.raises(RemoteProtocolError, match="reflected"):
        intro.receive(ours)


GOOD = SESSIONS[0]["outbound_side"]["features_sent"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"PeerNameFlavour": None, "Name": None}, "Field PeerNameFlavour is missing"),
        ({"ConnID": None}, "Field ConnID is missing"),
        ({"PeerNameFlavour": "hash"}, "flavour mismatch"),
        ({"Name": "x"}, "invalid peer name"),
        ({"ShortID": "4096"}, "out of range"),
        ({"ShortID": "x"}, "invalid syntax"),
        ({"Trusted": "yes"}, "ParseBool"),
        ({"UID": str(1 << 64)}, "out of range"),
        ({"UID": "-1"}, "invalid syntax"),
        ({"ConnID": "٣"}, "invalid syntax"),
    ],
)
def test_bad_features(change: dict[str, str | None], error: str) -> None:
    pairs = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(RemoteProtocolError, match=error):
        Features.from_map(pairs)


def test_optional_and_unknown_features() -> None:
    pairs = {key: GOOD[key] for key in ("PeerNameFlavour", "Name", "NickName", "UID", "ConnID")}
    plain = Features.from_map(pairs)
    assert (plain.short_id, plain.trusted, plain.overlays) == (None, False, None)
    more = Features.from_map(pairs | {"Trusted": "T", "Later": "x", "Overlays": "fastdp sleeve"})
    assert more.trusted
    assert more.overlays == ("fastdp", "sleeve")
    assert more.extra == {"Later": "x"}
    assert Features.from_map(more.to_map()) == more


def test_features_survive_the_wire() -> None:
    features = Features.from_map(GOOD)
    sent = gob.string_map(gob.Decoder(gob.string_map_stream(features.to_map())).next())
    assert sent == GOOD


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, encrypted: bool) -> None:
    versions = (b"", encode_header(2, 2), encode_header(1, 1), encode_header(1, 2))
    for prefix in (*versions, encode_header(1, 2) + bytes([encrypted])):
        intro = Intro(Features.from_map(GOOD), outbound=True, password=b"x" if encrypted else None)
        try:
            intro.receive(prefix + data)
        except (RemoteProtocolError, CryptoError):
            pass
