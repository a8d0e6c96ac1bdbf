"""Session keys against the real Weave Net 2.8.1, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import RemoteProtocolError
from crypto.handshake import KeyPair, session_key

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "session_key.json").read_text(encoding="utf-8")
)["vectors"]
BY_NAME = {case["name"]: case for case in VECTORS}

#: Points of order 1, 2, 4 and 8: X25519 gives zero for each, whatever the private key.
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"case0"}))
def test_both_ends_reach_the_recorded_key(name: str) -> None:
    case = BY_NAME[name]
    password = bytes.fromhex(case["password_hex"])
    pairs = {}
    for side in "ab":
        pairs[side] = KeyPair.from_private(bytes.fromhex(case[f"private_{side}"]))
        assert pairs[side].public.hex() == case[f"public_{side}"]
    for ours, theirs in ("ab", "ba"):
        key = session_key(pairs[ours].private, pairs[theirs].public, password)
        assert key.hex() == case["session_key"]


def test_an_empty_password_is_no_password() -> None:
    case = BY_NAME["case0"]
    assert case["password_hex"] == ""
    with pytest.raises(ValueError, match="no password"):
        session_key(bytes.fromhex(case["private_a"]), bytes.fromhex(case["public_b"]), b"")


def test_worked_example_of_the_specification() -> None:
    dialer = KeyPair.from_private(bytes(range(1, 33)))
    acceptor = KeyPair.from_private(bytes(range(33, 65)))
    assert dialer.public.hex().startswith("07a37cbc142093c8b755dc1b10e86cb4")
    assert acceptor.public.hex().startswith("5869aff450549732cbaaed5e5df9b30a")
    assert (
        session_key(dialer.private, acceptor.public, b"weave").hex()
        == "0d4b9a678ceac9d28537abc59c11b07b63823ced16e685c02dc8111a30064f87"
    )


@given(st.binary(min_size=1, max_size=80), st.binary(min_size=1, max_size=80))
def test_fresh_pairs_agree_exactly_when_the_passwords_do(one: bytes, other: bytes) -> None:
    ours, theirs = KeyPair.generate(), KeyPair.generate()
    our_key = session_key(ours.private, theirs.public, one)
    their_key = session_key(theirs.private, ours.public, other)
    assert (our_key == their_key) == (one == other)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_low_order_are_refused(point: str) -> None:
    with pytest.raises(RemoteProtocolError, match="low order"):
        session_key(KeyPair.generate().private, bytes.fromhex(point), b"weave")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{length} bytes"):
        session_key(bytes(range(1, 33)), bytes(length), b"weave")
    with pytest.raises(ValueError, match="32 bytes"):
        KeyPair.from_private(bytes(length))


def test_pairs_differ_and_hide_their_private_half() -> None:
    pair = KeyPair.generate()
    assert pair != KeyPair.generate()
    assert repr(pair.private) not in repr(pair)
    assert repr(pair.public) in repr(pair)
