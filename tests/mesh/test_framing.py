"""Frames, plain and sealed, against the vectors; limits on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from base.errors import DecryptError, LocalProtocolError, RemoteProtocolError
from crypto.tcp import TAG_LEN, TcpOpener, TcpSealer
from mesh.framing import BODY_LEN_MAX, FrameReader, frame
from tests.golden import load

VECTORS = load("tcp_framing")


def _bodies(reader: FrameReader) -> list[bytes]:
    return list(iter(reader.next_body, None))


@pytest.mark.parametrize("vector", VECTORS["plain"], ids=lambda vector: vector["wire"][:16])
def test_plain(vector: dict[str, Any]) -> None:
    body, wire = bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["wire"])
    assert frame(body) == wire
    reader = FrameReader()
    for position in range(len(wire)):
        assert reader.next_body() is None
        reader.feed(wire[position : position + 1])
    assert _bodies(reader) == [body]


@pytest.mark.parametrize("series", VECTORS["encrypted"], ids=["dialer", "acceptor"])
def test_sealed(series: dict[str, Any]) -> None:
    key = bytes.fromhex(series["session_key"])
    dialer = series["sender_is_outbound"]
    reader = FrameReader()
    for message in series["messages"]:
        counter = int(message["counter"])
        sealer = TcpSealer(key, dialer, start=counter)
        opener = TcpOpener(key, not dialer, start=counter)
        wire = frame(sealer.seal(bytes.fromhex(message["plaintext"])))
        assert wire.hex() == message["wire"]
        reader.feed(wire)
        (box,) = _bodies(reader)
        assert opener.open(box).hex() == message["plaintext"]
        with pytest.raises(DecryptError):
            opener.open(box)


@pytest.mark.parametrize(
    "vector", VECTORS["limits"], ids=lambda v: f"{v['direction']}{v['length']}"
)
def test_limits(vector: dict[str, Any]) -> None:
    length = vector["length"] + (TAG_LEN if "encrypted" in vector["direction"] else 0)
    if vector["direction"].startswith("send"):
        if vector["error"] is None:
            assert len(frame(bytes(length))) == length + 4
        else:
            with pytest.raises(LocalProtocolError) as caught:
                frame(bytes(length))
            assert str(caught.value) == vector["error"]
        return
    reader = FrameReader()
    reader.feed(length.to_bytes(4, "big"))
    if vector["error"] is None:
        assert reader.next_body() is None
    else:
        with pytest.raises(RemoteProtocolError) as refused:
            reader.next_body()
        assert str(refused.value) == vector["error"]


def test_frames_back_to_back_and_a_tail() -> None:
    reader = FrameReader()
    reader.feed(frame(b"a") + frame(b"") + frame(b"bc")[:5])
    assert _bodies(reader) == [b"a", b""]
    reader.feed(b"c" + frame(b"d"))
    assert _bodies(reader) == [b"bc", b"d"]
    assert BODY_LEN_MAX == 10 * 2**20
