"""Datagram sessions: both roles, both channels, replay and exhaustion; a model as the judge."""

from __future__ import annotations

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import DecryptError, NonceExhaustedError, ReplayError
from crypto.ciphers import Cipher
from crypto.session import SEQUENCE_END, ReplayWindow, SleeveSession

NAME = b"\xce\x01\x00\x00\x00\x01"
KEY = bytes(range(32))
CIPHERS = (Cipher.SECRETBOX, Cipher.GCM)


def pair(cipher: Cipher) -> tuple[SleeveSession, SleeveSession]:
    return SleeveSession(KEY, True, cipher), SleeveSession(KEY, False, cipher)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_both_directions_and_channels(cipher: Cipher) -> None:
    dialler, acceptor = pair(cipher)
    for df in (True, False, True):
        for sender, receiver in ((dialler, acceptor), (acceptor, dialler)):
            number = sender.next_sequence(df=df)
            datagram = sender.seal(NAME, b"records", df=df)
            assert int.from_bytes(datagram[6:14], "big") == number | df << 63
            assert receiver.open(datagram) == (df, b"records")
    assert (dialler.next_sequence(df=True), dialler.next_sequence(df=False)) == (2, 1)


def test_worked_examples_of_the_specification() -> None:
    key = bytes.fromhex("0d4b9a678ceac9d28537abc59c11b07b63823ced16e685c02dc8111a30064f87")
    name = bytes.fromhex("7a9febb60c6e")
    records = name + bytes.fromhex("ce313c8a02f10016") + bytes(14)
    records += bytes.fromhex("1dd99dd11dd99dd1")
    dialler, acceptor = SleeveSession(key, True), SleeveSession(key, False)
    assert dialler.seal(name, records, df=True).hex() == (
        "7a9febb60c6e8000000000000000b7c2f2b29949d5d4b46e6bf8ee3763694f802a9e6df5d322ca92b8d4db82"
        "fc1f56c6718d541b123ff0d9de346f73bce6b21706b1"
    )
    acceptor.skip_to(5, df=False)
    assert acceptor.seal(name, records, df=False).hex() == (
        "7a9febb60c6e00000000000000053460d8e1657915fb2cdf4d923b14616db580d6c54ead83b805ebac5cfba9"
        "50b906c754eca9953d8932 12440ef0535aa6570c99a7".replace(" ", "")
    )


def test_tcp_and_sleeve_nonces_never_meet() -> None:
    """The same bytes sealed for TCP by either side don't open as a datagram, whatever the field."""
    for head in (0x40, 0xC0):
        box = nacl.bindings.crypto_secretbox(b"x", bytes([head]) + bytes(23), KEY)
        for outbound in (True, False):
            with pytest.raises(DecryptError):
                SleeveSession(KEY, outbound).open(NAME + bytes(8) + box)


@pytest.mark.parametrize("cipher", CIPHERS)
@given(
    order=st.lists(st.tuples(st.integers(0, 11), st.booleans(), st.booleans()), max_size=40),
    gap=st.sampled_from([1, 1 << 19, 1 << 20, 5 << 20]),
)
def test_any_order_any_repeats(
    cipher: Cipher, order: list[tuple[int, bool, bool]], gap: int
) -> None:
    """Each is taken at most once, and always unless it is too old; damage costs nothing."""
    dialler, acceptor = pair(cipher)
    datagrams = {}
    for index in range(12):
        for df in (False, True):
            dialler.skip_to(index * gap, df=df)
            datagrams[index, df] = dialler.seal(NAME, bytes([index, df]), df=df)
    newest = {False: 0, True: 0}
    taken = set()
    for index, df, damaged in order:
        datagram = datagrams[index, df]
        if damaged:
            with pytest.raises(DecryptError):
                acceptor.open(datagram[:-1] + bytes([datagram[-1] ^ 1]))
            continue
        window = index * gap >> 20
        if (index, df) in taken or window < newest[df] - 1:
            with pytest.raises(ReplayError):
                acceptor.open(datagram)
            continue
        assert acceptor.open(datagram) == (df, bytes([index, df]))
        taken.add((index, df))
        newest[df] = max(newest[df], window)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_exhaustion(cipher: Cipher) -> None:
    dialler, acceptor = pair(cipher)
    dialler.skip_to(SEQUENCE_END - 1, df=True)
    assert acceptor.open(dialler.seal(NAME, b"last", df=True)) == (True, b"last")
    with pytest.raises(NonceExhaustedError):
        dialler.seal(NAME, b"one more", df=True)
    assert acceptor.open(dialler.seal(NAME, b"other channel", df=False))
    with pytest.raises(ValueError, match="only grow"):
        dialler.skip_to(0, df=True)


@given(st.binary(max_size=200), st.sampled_from(CIPHERS))
def test_arbitrary_bytes_raise_and_change_nothing(data: bytes, cipher: Cipher) -> None:
    dialler, acceptor = pair(cipher)
    with pytest.raises(DecryptError):
        acceptor.open(data)
    assert acceptor.open(dialler.seal(NAME, b"", df=True)) == (True, b"")


def test_arguments() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SleeveSession(bytes(31), True)
    with pytest.raises(ValueError, match="cipher"):
        SleeveSession(KEY, True, Cipher.NONE)
    session = SleeveSession(KEY, True)
    with pytest.raises(ValueError, match="65508"):
        session.seal(NAME, bytes(65478), df=True)
    assert session.next_sequence(df=True) == 0
    assert len(session.seal(NAME, bytes(65477), df=True)) == 65507


def test_window_object() -> None:
    window = ReplayWindow()
    quiet = window.memory_bytes
    assert window.accept(3 << 20)
    assert not window.accept(3 << 20)
    assert window.current == 3
    assert window.memory_bytes > quiet
