"""The sealing and opening stages: whole batches between two nodes, and what may go wrong.

Two nodes, each the other's only neighbour: frames go through the egress stages of one and the
ingress stages of the other, without a kernel between them.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.counters import COUNTER_NAMES, Counter
from bench.rig import udp_frame
from native import ffi, lib
from native.datapath import Batch, Datapath, Tables

pytestmark = pytest.mark.native

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "sleeve_replay.json").read_text(encoding="utf-8")
)
NAMES = (b"\xce\x01\x00\x00\x00\x01", b"\xce\x02\x00\x00\x00\x02", b"\xce\x03\x00\x00\x00\x03")
MACS = (b"\x02\x01\x00\x00\x00\x01", b"\x02\x02\x00\x00\x00\x02", b"\x02\x03\x00\x00\x00\x03")
CIPHERS = (lib.WN_CIPHER_SECRETBOX, lib.WN_CIPHER_GCM)
NOW_S = 1000
PEER = 1
FORWARDER = 7


class Node:
    """Peer ``ourself`` with the other one as neighbour, on forwarder 7."""

    def __init__(self, ourself: int, mtu: int = 1414) -> None:
        self.other = 1 - ourself
        self.datapath = Datapath()
        self.batch = Batch()
        self.datapath.set_forwarder(FORWARDER, self.other, NAMES[self.other], "10.0.0.9", 6783)
        self.datapath.set_mtu(FORWARDER, mtu, lib.WN_OVERHEAD_ENCRYPTED)
        tables = Tables(3, ourself, 4)
        for peer, name in enumerate(NAMES):
            tables.set_peer(peer, name)
        tables.set_neighbour(self.other, FORWARDER)
        tables.set_unicast(self.other, FORWARDER)
        tables.set_broadcast(ourself, [FORWARDER])
        self.datapath.swap(tables)
        self.datapath.fill_fdb([(MACS[self.other], self.other)], NOW_S)

    def set_key(self, key: bytes | None, cipher: int, *, outbound: bool) -> int:
        handle = self.datapath.c
        return int(lib.wn_forwarder_set_key(handle, FORWARDER, cipher, key or ffi.NULL, outbound))

    def egress(self, frames: list[bytes]) -> list[tuple[bool, tuple[bytes, ...]]]:
        """Frames captured here → sealed messages, each (DF channel, datagrams)."""
        self.batch.reset()
        for frame in frames:
            assert self.batch.put_captured(frame) == lib.WN_OK
        lib.wn_lookup(self.datapath.c, self.batch.c, NOW_S)
        out = []
        more = lib.WN_MORE
        while more:
            more = lib.wn_encap(self.datapath.c, self.batch.c, NOW_S) & lib.WN_MORE
            left = lib.wn_seal(self.datapath.c, self.batch.c)
            messages = self.batch.messages()
            assert len(messages) == left
            out += [(message.df, message.datagrams) for message in messages]
        return out

    def ingress(self, trains: list[tuple[bytes, int]], *, opening: bool = True) -> list[bytes]:
        """Received (train, datagram size or 0) → frames for the bridge, not joined."""
        self.batch.reset()
        for data, gso_size in trains:
            assert self.batch.put_datagram(data, gso_size=gso_size) == lib.WN_OK
        if opening:
            lib.wn_open(self.datapath.c, self.batch.c)
        out = []
        more = lib.WN_MORE
        while more:
            more = lib.wn_decap(self.datapath.c, self.batch.c, NOW_S) & lib.WN_MORE
            lib.wn_coalesce(self.datapath.c, self.batch.c, 0)
            out += [frame for _, frame in self.batch.injects()]
        return out

    def count(self, counter: Counter) -> int:
        return self.datapath.counters()[COUNTER_NAMES.index(counter)]

    def session(self) -> Any:
        out = ffi.new("wn_session_info *")
        assert lib.wn_forwarder_get_session(self.datapath.c, FORWARDER, out) == lib.WN_OK
        return out


def pair(cipher: int, key: bytes | None = None, mtu: int = 1414) -> tuple[Node, Node]:
    """A dialler and an acceptor that share a fresh key."""
    key = key or os.urandom(32)
    dialler, acceptor = Node(0, mtu), Node(1, mtu)
    assert dialler.set_key(key, cipher, outbound=True) == lib.WN_OK
    assert acceptor.set_key(key, cipher, outbound=False) == lib.WN_OK
    return dialler, acceptor


def some_frames(count: int, size: int, src: int = 0) -> list[bytes]:
    return [
        udp_frame(size, dst_mac=MACS[1 - src], src_mac=MACS[src], seed=seed)
        for seed in range(count)
    ]


def as_trains(messages: list[tuple[bool, tuple[bytes, ...]]]) -> list[tuple[bytes, int]]:
    return [
        (b"".join(datagrams), len(datagrams[0]) if len(datagrams) > 1 else 0)
        for _, datagrams in messages
    ]


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [60, 512, 1428])
def test_frames_arrive_and_nothing_is_readable_on_the_way(cipher: int, size: int) -> None:
    dialler, acceptor = pair(cipher)
    frames = some_frames(70, size)
    messages = dialler.egress(frames)
    assert acceptor.ingress(as_trains(messages)) == frames
    wire = b"".join(datagram for _, datagrams in messages for datagram in datagrams)
    assert not any(MACS[0] in wire or frame[14:34] in wire for frame in frames)
    back = some_frames(3, size, src=1)
    assert dialler.ingress(as_trains(acceptor.egress(back))) == back


@pytest.mark.parametrize("cipher", CIPHERS)
def test_datagrams_keep_their_limit_and_their_trains(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    frames = some_frames(200, 1428)  # the largest that the MTU admits
    messages = dialler.egress(frames)
    assert max(len(datagrams) for _, datagrams in messages) >= 40
    for df, datagrams in messages:
        assert df
        assert {len(datagram) for datagram in datagrams} == {1472}  # 1500 - IP - UDP
        assert sum(map(len, datagrams)) <= lib.WN_PAYLOAD_MAX
    assert acceptor.ingress(as_trains(messages)) == frames
    small = some_frames(100, 60)
    for _, datagrams in dialler.egress(small):
        assert max(map(len, datagrams)) <= 1472


def test_the_oracle_reads_what_we_send() -> None:
    key = os.urandom(32)
    dialler, _ = pair(lib.WN_CIPHER_SECRETBOX, key)
    frames = some_frames(5, 1428)
    sequence = 0
    for _, datagrams in dialler.egress(frames):
        for datagram in datagrams:
            field = (1 << 63 | sequence).to_bytes(8, "big")
            assert datagram[:14] == NAMES[0] + field
            nonce = b"\x80" + bytes(15) + field
            records = nacl.bindings.crypto_secretbox_open(datagram[14:], nonce, key)
            assert records[14:] == frames[sequence]
            sequence += 1
    assert sequence == 5


def test_recorded_packets_step_by_step() -> None:
    case = VECTORS["packets"]
    node = Node(1)
    outbound = case["receiver_is_tcp_outbound"]
    node.set_key(bytes.fromhex(case["session_key"]), lib.WN_CIPHER_SECRETBOX, outbound=outbound)
    counted = {
        "same again: silently dropped": Counter.DROP_REPLAY,
        "corrupted": Counter.DROP_DECRYPT,
        "too short": Counter.DROP_SHORT_DATAGRAM,
        "DF bit in the clear part flipped": Counter.DROP_DECRYPT,
    }
    for step in case["steps"]:
        before = node.count(Counter.RECEIVED_FRAMES) + node.count(Counter.SPECIAL_FRAMES)
        reason = counted.get(step["note"])
        drops = node.count(reason) if reason else 0
        node.ingress([(bytes.fromhex(step["udp_payload"]), 0)])
        after = node.count(Counter.RECEIVED_FRAMES) + node.count(Counter.SPECIAL_FRAMES)
        assert after - before == step["frames_delivered"], step["note"]
        if reason:
            assert node.count(reason) == drops + 1, step["note"]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_channels_count_apart(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    arp = b"\xff" * 6 + MACS[0] + b"\x08\x06" + bytes(46)
    for _ in range(3):
        acceptor.ingress(as_trains(dialler.egress([*some_frames(1, 200), arp])))
    info = dialler.session()
    assert (info.next_df, info.next_frag) == (3, 3)
    assert acceptor.count(Counter.RECEIVED_FRAMES) == 6
    assert acceptor.count(Counter.DROP_REPLAY) == 0


@pytest.mark.parametrize("cipher", CIPHERS)
def test_replay_reflection_and_damage_are_dropped_one_by_one(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    frames = some_frames(20, 1428)
    ((data, size),) = as_trains(dialler.egress(frames))
    damaged = bytearray(data)
    damaged[3 * size + 700] ^= 1  # in the fourth datagram
    damaged[5 * size + 15] ^= 0x80  # tag of the sixth
    got = acceptor.ingress([(bytes(damaged), size)])
    assert got == [frame for at, frame in enumerate(frames) if at not in (3, 5)]
    assert acceptor.count(Counter.DROP_DECRYPT) == 2
    # a failure has not used the number up: the originals still open, the others are repeats
    assert acceptor.ingress([(data, size)]) == [frames[3], frames[5]]
    assert acceptor.count(Counter.DROP_REPLAY) == 18
    assert dialler.ingress([(data, size)]) == []  # carries our own name, not the neighbour's
    reflected = NAMES[1] + data[6:size]
    assert dialler.ingress([(reflected, 0)]) == []
    assert dialler.count(Counter.DROP_DECRYPT) == 1


@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_same_datagram_twice_in_one_train(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    ((data, _),) = as_trains(dialler.egress(some_frames(1, 300)))
    assert len(acceptor.ingress([(data * 4, len(data))])) == 1
    assert acceptor.count(Counter.DROP_REPLAY) == 3


@pytest.mark.parametrize("cipher", CIPHERS)
def test_late_and_reordered_datagrams_are_accepted_once(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    first = as_trains(dialler.egress(some_frames(1, 100)))[0][0]
    assert set_sequence(dialler, 1, (1 << 20) + 5) == lib.WN_OK
    second = as_trains(dialler.egress(some_frames(1, 100)))[0][0]
    assert set_sequence(dialler, 1, (3 << 20) - 1) == lib.WN_OK
    third, fourth = (as_trains(dialler.egress(some_frames(1, 100)))[0][0] for _ in range(2))
    assert len(acceptor.ingress([(second, 0), (first, 0)])) == 2
    assert len(acceptor.ingress([(fourth, 0), (third, 0)])) == 2
    assert acceptor.ingress([(data, 0) for data in (first, second, third, fourth)]) == []
    assert acceptor.count(Counter.DROP_REPLAY) == 4
    assert acceptor.count(Counter.DROP_DECRYPT) == 0
    assert acceptor.session().window_df == 3


def set_sequence(node: Node, df: int, sequence: int) -> int:
    return int(lib.wn_forwarder_set_sequence(node.datapath.c, FORWARDER, df, sequence))


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_message_across_two_windows(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    assert set_sequence(dialler, 1, (1 << 20) - 7) == lib.WN_OK
    frames = some_frames(30, 1428)
    assert acceptor.ingress(as_trains(dialler.egress(frames))) == frames
    assert acceptor.session().window_df == 1


@pytest.mark.parametrize("cipher", CIPHERS)
def test_exhaustion_is_final(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    end = 1 << lib.WN_SEQUENCE_BITS
    assert set_sequence(dialler, 1, end - 1) == lib.WN_OK
    last = dialler.egress(some_frames(1, 100))
    assert last[0][1][0][6:14] == b"\xff" * 8
    assert len(acceptor.ingress(as_trains(last))) == 1
    for _ in range(3):
        assert dialler.egress(some_frames(1, 100)) == []
    assert dialler.count(Counter.DROP_NONCE_EXHAUSTED) == 3
    assert dialler.session().next_df == end
    arp = b"\xff" * 6 + MACS[0] + b"\x08\x06" + bytes(46)
    assert len(dialler.egress([arp])) == 1  # the other channel goes on
    assert set_sequence(dialler, 1, 0) == lib.WN_ERR_RANGE
    assert set_sequence(dialler, 0, end + 1) == lib.WN_ERR_RANGE


@pytest.mark.parametrize("cipher", CIPHERS)
def test_plain_datagrams_of_an_encrypted_neighbour(cipher: int) -> None:
    plain = Node(0)
    acceptor = Node(1)
    trains = as_trains(plain.egress(some_frames(4, 1428)))
    assert len(acceptor.ingress(trains)) == 4
    acceptor.set_key(os.urandom(32), cipher, outbound=False)
    assert acceptor.ingress(trains) == []
    assert acceptor.ingress(trains, opening=False) == []
    assert acceptor.count(Counter.DROP_PLAIN_ON_ENCRYPTED) == 8
    assert acceptor.count(Counter.DROP_DECRYPT) == 0


def test_encrypted_datagrams_of_a_plain_neighbour_are_not_frames() -> None:
    dialler, _ = pair(lib.WN_CIPHER_SECRETBOX)
    acceptor = Node(1)
    assert acceptor.ingress(as_trains(dialler.egress(some_frames(4, 1428)))) == []


@pytest.mark.parametrize("cipher", CIPHERS)
def test_wrong_key_and_wrong_cipher(cipher: int) -> None:
    key = os.urandom(32)
    dialler, acceptor = pair(cipher, key)
    trains = as_trains(dialler.egress(some_frames(2, 1428)))
    stranger, other = Node(1), Node(1)
    stranger.set_key(os.urandom(32), cipher, outbound=False)
    other.set_key(key, 3 - cipher, outbound=False)
    same_role = Node(1)
    same_role.set_key(key, cipher, outbound=True)
    for node in (stranger, other, same_role):
        assert node.ingress(trains) == []
        assert node.count(Counter.DROP_DECRYPT) == 2
    assert len(acceptor.ingress(trains)) == 2


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_key_is_never_taken_twice(cipher: int) -> None:
    node = Node(0)
    first, second = os.urandom(32), os.urandom(32)
    assert node.set_key(first, cipher, outbound=True) == lib.WN_OK
    node.egress(some_frames(3, 1428))
    assert node.set_key(first, cipher, outbound=True) == lib.WN_OK  # a repeated snapshot
    assert node.session().next_df == 3
    assert node.set_key(first, 3 - cipher, outbound=True) == lib.WN_ERR_RANGE
    assert node.set_key(first, cipher, outbound=False) == lib.WN_ERR_RANGE
    assert node.session().next_df == 3
    assert node.set_key(second, cipher, outbound=True) == lib.WN_OK
    assert node.session().next_df == 0
    assert node.set_key(first, cipher, outbound=True) == lib.WN_ERR_RANGE
    node.datapath.clear_forwarder(FORWARDER)
    assert node.set_key(os.urandom(32), cipher, outbound=True) == lib.WN_ERR_RANGE  # not there
    node.datapath.set_forwarder(FORWARDER, 1, NAMES[1], "10.0.0.9", 6783)
    assert node.set_key(second, cipher, outbound=True) == lib.WN_ERR_RANGE
    assert node.session().cipher == lib.WN_CIPHER_NONE


def test_arguments_are_checked() -> None:
    node = Node(0)
    assert node.set_key(None, lib.WN_CIPHER_SECRETBOX, outbound=True) == lib.WN_ERR_RANGE
    assert node.set_key(bytes(32), 3, outbound=True) == lib.WN_ERR_RANGE
    assert node.set_key(bytes(32), -1, outbound=True) == lib.WN_ERR_RANGE
    assert set_sequence(node, 1, 1) == lib.WN_ERR_RANGE  # no session
    handle = node.datapath.c
    assert lib.wn_forwarder_set_key(handle, 5000, 1, bytes(32), 0) == lib.WN_ERR_RANGE
    assert lib.wn_forwarder_set_sequence(handle, 5000, 1, 0) == lib.WN_ERR_RANGE
    assert lib.wn_forwarder_get_session(handle, 5000, ffi.new("wn_session_info *")) < 0
    put = lib.wn_batch_put_message
    assert put(handle, node.batch.c, 9, 1, b"", 0) == lib.WN_ERR_RANGE
    assert put(handle, node.batch.c, FORWARDER, 1, bytes(65502), 65502) == lib.WN_ERR_RANGE


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_message_survives_a_change_of_keys(cipher: int) -> None:
    """Packed in clear, then a key; packed for a key, then another or none: nothing leaves."""
    node = Node(0)
    batch, handle = node.batch, node.datapath.c

    def packed() -> None:
        batch.reset()
        batch.put_captured(some_frames(1, 300)[0])
        lib.wn_lookup(handle, batch.c, NOW_S)
        assert lib.wn_encap(handle, batch.c, NOW_S) == 1

    packed()
    node.set_key(os.urandom(32), cipher, outbound=True)
    assert lib.wn_seal(handle, batch.c) == 0
    packed()
    node.set_key(os.urandom(32), cipher, outbound=True)
    assert lib.wn_seal(handle, batch.c) == 0
    packed()
    node.set_key(None, lib.WN_CIPHER_NONE, outbound=True)
    assert lib.wn_seal(handle, batch.c) == 0
    assert batch.messages() == []
    assert node.count(Counter.DROP_KEY_CHANGED) == 3
    packed()
    assert lib.wn_seal(handle, batch.c) == 1


def test_what_was_not_sealed_is_not_sent() -> None:
    """Even if the stage is left out: half of the batch is for a neighbour without a key."""
    node = Node(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        end.settimeout(5)
        for forwarder in (FORWARDER, 8):
            peer = 1 if forwarder == FORWARDER else 2
            port = end.getsockname()[1]
            node.datapath.set_forwarder(forwarder, peer, NAMES[peer], "127.0.0.1", port)
        node.set_key(os.urandom(32), lib.WN_CIPHER_GCM, outbound=True)
        for forwarder in (FORWARDER, 8, 8, FORWARDER, 8):
            records = b"to %d" % forwarder
            lib.wn_batch_put_message(
                node.datapath.c, node.batch.c, forwarder, 1, records, len(records)
            )
        sent = lib.wn_udp_send(node.datapath.c, node.batch.c, end.fileno(), end.fileno())
        assert sent == lib.WN_OK
        assert [end.recv(100) for _ in range(3)] == [NAMES[0] + b"to 8"] * 3
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(100)
    assert node.count(Counter.DROP_KEY_CHANGED) == 2


def test_sealing_twice_is_sealing_once() -> None:
    dialler, acceptor = pair(lib.WN_CIPHER_SECRETBOX)
    frames = some_frames(3, 400)
    dialler.egress(frames)
    assert lib.wn_seal(dialler.datapath.c, dialler.batch.c) == len(dialler.batch.messages())
    again = [(message.df, message.datagrams) for message in dialler.batch.messages()]
    assert acceptor.ingress(as_trains(again)) == frames


@pytest.mark.parametrize("cipher", CIPHERS)
def test_special_frames_of_our_own(cipher: int) -> None:
    dialler, acceptor = pair(cipher)
    uid = 0x1122334455667788
    for df, frame_len in ((1, 22), (0, 60001), (1, 60000), (1, 1428)):
        frame = bytes(14) + (uid.to_bytes(8, "big") if frame_len == 22 else bytes(frame_len - 14))
        records = NAMES[0] + NAMES[1] + frame_len.to_bytes(2, "big") + frame
        dialler.batch.reset()
        put = lib.wn_batch_put_message(
            dialler.datapath.c, dialler.batch.c, FORWARDER, df, records, len(records)
        )
        assert put == lib.WN_OK
        assert lib.wn_seal(dialler.datapath.c, dialler.batch.c) == 1
        ((message,),) = [dialler.batch.messages()]
        assert len(message.datagrams[0]) == 44 + frame_len
        acceptor.ingress([(message.datagrams[0], 0)])
        (event,) = acceptor.batch.events()
        assert (event.frame_len, event.forwarder) == (frame_len, FORWARDER)
        assert event.uid == (uid if frame_len == 22 else 0)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_two_threads_never_share_a_number(cipher: int) -> None:
    node = Node(0)
    node.set_key(os.urandom(32), cipher, outbound=True)
    assert set_sequence(node, 1, (1 << 20) - 500) == lib.WN_OK  # and over a window's edge
    frames = some_frames(40, 1428)
    fields: list[set[bytes]] = [set(), set()]
    sent = [0, 0]

    def work(which: int) -> None:
        batch = Batch()
        for _ in range(50):
            batch.reset()
            for frame in frames:
                batch.put_captured(frame)
            lib.wn_lookup(node.datapath.c, batch.c, NOW_S)
            lib.wn_encap(node.datapath.c, batch.c, NOW_S)
            lib.wn_seal(node.datapath.c, batch.c)
            for message in batch.messages():
                sent[which] += len(message.datagrams)
                fields[which] |= {datagram[6:14] for datagram in message.datagrams}

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sent == [2000, 2000]
    assert len(fields[0] | fields[1]) == 4000
    assert node.session().next_df == (1 << 20) - 500 + 4000


def test_a_batch_larger_than_its_sealing_memory_goes_in_parts() -> None:
    node = Node(0)
    neighbours = 20
    for index in range(neighbours):
        forwarder = 20 + index
        name = b"\xce\x09\x00\x00\x00" + bytes([index])
        node.datapath.set_forwarder(forwarder, 3 + index, name, "10.0.0.9", 6783)
        node.datapath.set_mtu(forwarder, 1414, lib.WN_OVERHEAD_ENCRYPTED)
        key = os.urandom(32)
        handle = node.datapath.c
        assert lib.wn_forwarder_set_key(handle, forwarder, CIPHERS[index % 2], key, 1) == lib.WN_OK
    tables = Tables(3 + neighbours, 0, neighbours)
    for peer, name in enumerate(NAMES):
        tables.set_peer(peer, name)
    for index in range(neighbours):
        tables.set_peer(3 + index, b"\xce\x09\x00\x00\x00" + bytes([index]))
        tables.set_neighbour(3 + index, 20 + index)
    tables.set_broadcast(0, range(20, 20 + neighbours))
    node.datapath.swap(tables)
    frames = [
        udp_frame(1428, dst_mac=b"\xff" * 6, src_mac=MACS[0], seed=seed) for seed in range(600)
    ]
    messages = node.egress(frames)
    assert sum(len(datagrams) for _, datagrams in messages) == 600 * neighbours
    drops = [name for name in Counter if name.startswith("drop_") and node.count(name)]
    assert drops == []


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.integers(0, 120), st.sampled_from([0, 1, 2])),
        max_size=6,
    ),
    st.sampled_from(CIPHERS),
)
def test_arbitrary_datagrams_change_nothing(
    datagrams: list[tuple[bytes, int, int]], cipher: int
) -> None:
    dialler, acceptor = pair(cipher, mtu=1414)
    hostile = [(NAMES[0][: 6 if kind else 3] + data, size) for data, size, kind in datagrams]
    assert acceptor.ingress(hostile) == []
    info = acceptor.session()
    assert (info.window_df, info.window_frag) == (0, 0)
    frames = some_frames(2, 100)
    assert acceptor.ingress(as_trains(dialler.egress(frames))) == frames
