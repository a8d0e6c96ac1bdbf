"""Gossip envelopes against the vectors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base import gob
from base.errors import RemoteProtocolError
from base.names import PeerName
from mesh.protocol import Envelope, Tag, decode_envelope, encode_envelope
from tests.golden import load

VECTORS = load("gossip_envelope")["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    destination = vector.get("destination")
    envelope = Envelope(
        vector["channel"],
        PeerName.parse(vector["source"]),
        bytes.fromhex(vector["payload"]),
        PeerName.parse(destination) if destination else None,
    )
    payload = bytes.fromhex(vector["bytes_after_tag"])
    assert encode_envelope(envelope) == payload
    for tag in vector["tags"]:
        assert decode_envelope(tag, payload) == envelope


def test_every_tag_is_in_the_vectors() -> None:
    assert {tag for vector in VECTORS for tag in vector["tags"]} == {4, 5, 6}


def test_a_name_that_is_no_name() -> None:
    payload = gob.string_value("x") + gob.uint_value(1 << 48) + gob.bytes_value(b"")
    with pytest.raises(RemoteProtocolError, match="48-bit"):
        decode_envelope(Tag.GOSSIP, payload)


def test_an_endless_channel_name() -> None:
    payload = gob.string_value("x" * 256) + gob.uint_value(1) + gob.bytes_value(b"")
    with pytest.raises(RemoteProtocolError, match="too long"):
        decode_envelope(Tag.GOSSIP, payload)


@given(st.sampled_from([4, 5, 6]), st.binary(max_size=80))
def test_any_bytes_decode_or_raise_the_remote_error(tag: int, payload: bytes) -> None:
    try:
        decode_envelope(tag, payload)
    except RemoteProtocolError:
        pass
