"""Recorded sessions of encrypted Weave Net routers: every message and every datagram is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from base.errors import DecryptError
from crypto.handshake import KeyPair, session_key
from crypto.session import SleeveSession
from crypto.tcp import TcpOpener, TcpSealer

SESSIONS: list[dict[str, Any]] = [
    session
    for session in json.loads(
        (Path(__file__).parent.parent / "vectors" / "session_transcripts.json").read_text(
            encoding="utf-8"
        )
    )["sessions"]
    if session["password"]
]
INTRO_LEN = 7 + 1 + 32  # header, encryption flag, public key


def connections_of(session: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that came as far as messages."""
    return [one for one in session["tcp_connections"] if one["messages"]]


def test_there_are_encrypted_sessions() -> None:
    assert len(SESSIONS) == 2
    assert all(connections_of(session) for session in SESSIONS)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["file"])
def test_keys(session: dict[str, Any]) -> None:
    password = session["password"].encode()
    for connection in connections_of(session):
        for own, other in (("outbound", "inbound"), ("inbound", "outbound")):
            pair = KeyPair.from_private(bytes.fromhex(connection[f"{own}_private_key"]))
            assert pair.public.hex() == connection[f"{own}_public_key"]
            public = bytes.fromhex(connection[f"{other}_public_key"])
            assert session_key(pair.private, public, password).hex() == connection["session_key"]


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["file"])
def test_every_byte_of_the_streams(session: dict[str, Any]) -> None:
    for connection in connections_of(session):
        key = bytes.fromhex(connection["session_key"])
        for side in ("outbound", "inbound"):
            stream = bytes.fromhex(connection[f"stream_from_{side}"])
            opener = TcpOpener(key, side == "inbound")
            sealer = TcpSealer(key, side == "outbound")
            at = INTRO_LEN
            for message in connection["messages"]:
                if message["from"] != side:
                    continue
                box = stream[at + 4 : at + 4 + int.from_bytes(stream[at : at + 4], "big")]
                plain = opener.open(box)
                assert plain.hex() == message["plaintext"]
                assert sealer.seal(plain) == box
                at += 4 + len(box)
            assert at == len(stream)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["file"])
def test_every_datagram_opens_in_one_direction_of_one_connection(session: dict[str, Any]) -> None:
    keys = [bytes.fromhex(one["session_key"]) for one in connections_of(session)]
    receivers: dict[tuple[bytes, bool, str], SleeveSession] = {}
    opened = 0
    for packet in session["udp_packets"]:
        datagram = bytes.fromhex(packet.get("udp_payload") or "")
        if len(datagram) != packet["udp_payload_length"]:
            continue  # too long to be recorded as a whole
        found = []
        for key in keys:
            for outbound in (False, True):
                place = (key, outbound, packet["from"])
                receiver = receivers.setdefault(place, SleeveSession(key, outbound))
                try:
                    found.append(receiver.open(datagram))
                except DecryptError:
                    continue
        ((df, records),) = found
        assert df == bool(datagram[6] & 0x80)
        wanted = b"".join(
            bytes.fromhex(frame["src_peer"] + frame["dst_peer"])
            + frame["length"].to_bytes(2, "big")
            + bytes.fromhex(frame["frame"])
            for frame in packet["frames"]
            if "frame" in frame
        )
        assert records == wanted or any("frame" not in frame for frame in packet["frames"])
        opened += 1
    assert opened >= 30
