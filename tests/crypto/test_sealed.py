"""The box that the pipeline uses, over two datapaths."""

from __future__ import annotations

import os

import pytest

from base.errors import CryptoError
from crypto.ciphers import Cipher
from crypto.sealed import SealedBox, backend, put_records, set_key
from native import lib
from native.datapath import Batch
from router.stages import Box
from tests.native.test_seal import FORWARDER, NAMES, NOW_S, Node, some_frames


@pytest.mark.parametrize("cipher", list(Cipher))
def test_takes_the_place_of_the_plain_box(cipher: Cipher) -> None:
    """One box for all neighbours, those without a key included."""
    ours, theirs = Node(0), Node(1)
    key = b"" if cipher is Cipher.NONE else os.urandom(32)
    set_key(ours.datapath, FORWARDER, cipher, key, outbound=True)
    set_key(theirs.datapath, FORWARDER, cipher, key, outbound=False)
    sealer: Box = SealedBox(ours.datapath)
    opener: Box = SealedBox(theirs.datapath)
    frames = some_frames(3, 500)
    batch, received = Batch(), Batch()
    for frame in frames:
        batch.put_captured(frame)
    lib.wn_lookup(ours.datapath.c, batch.c, NOW_S)
    lib.wn_encap(ours.datapath.c, batch.c, NOW_S)
    sealer.seal(batch)
    wire = b"".join(datagram for message in batch.messages() for datagram in message.datagrams)
    assert (frames[0] in wire) == (cipher is Cipher.NONE)
    assert lib.wn_batch_transfer(batch.c, received.c, 0x0100007F, 6783) > 0
    opener.open(received)
    lib.wn_decap(theirs.datapath.c, received.c, NOW_S)
    lib.wn_coalesce(theirs.datapath.c, received.c, 0)
    assert [frame for _, frame in received.injects()] == frames


@pytest.mark.parametrize("cipher", list(Cipher))
def test_a_heartbeat_of_our_own(cipher: Cipher) -> None:
    ours, theirs = Node(0), Node(1)
    key = b"" if cipher is Cipher.NONE else os.urandom(32)
    set_key(ours.datapath, FORWARDER, cipher, key, outbound=True)
    set_key(theirs.datapath, FORWARDER, cipher, key, outbound=False)
    frame = bytes(14) + bytes(range(8))
    records = NAMES[0] + NAMES[1] + len(frame).to_bytes(2, "big") + frame
    batch = Batch()
    put_records(ours.datapath, batch, FORWARDER, records, df=True)
    SealedBox(ours.datapath).seal(batch)
    (message,) = batch.messages()
    assert message.df
    assert theirs.ingress([(message.datagrams[0], 0)]) == []
    (event,) = theirs.batch.events()
    assert event.uid == int.from_bytes(bytes(range(8)), "big")
    with pytest.raises(ValueError, match="forwarder 9"):
        put_records(ours.datapath, batch, 9, records, df=True)


def test_overheads_and_labels() -> None:
    assert [cipher.overhead for cipher in Cipher] == [62, 86, 86]
    assert [Cipher.of_label(cipher.label) for cipher in Cipher] == list(Cipher)
    with pytest.raises(ValueError, match="rot13"):
        Cipher.of_label("rot13")


def test_keys_are_refused_with_a_reason() -> None:
    node, key = Node(0), os.urandom(32)
    set_key(node.datapath, FORWARDER, Cipher.GCM, key, outbound=True)
    set_key(node.datapath, FORWARDER, Cipher.GCM, key, outbound=True)
    with pytest.raises(CryptoError, match="does not take"):
        set_key(node.datapath, FORWARDER, Cipher.GCM, key, outbound=False)
    with pytest.raises(CryptoError, match="forwarder 9 "):
        set_key(node.datapath, 9, Cipher.GCM, os.urandom(32), outbound=True)
    with pytest.raises(ValueError, match="31 bytes"):
        set_key(node.datapath, FORWARDER, Cipher.GCM, bytes(31), outbound=True)
    with pytest.raises(ValueError, match="0 bytes"):
        set_key(node.datapath, FORWARDER, Cipher.SECRETBOX, b"", outbound=True)


def test_backends_have_names() -> None:
    assert backend(Cipher.NONE) == ""
    assert backend(Cipher.SECRETBOX) in ("avx512", "libsodium")
    assert backend(Cipher.GCM) in ("ipsec-mb", "openssl")
