"""Sealing and opening alone: ciphers by frame sizes by batch sizes, datagrams as on a real path.

The path carries 1500 bytes, or 9000 for the largest frames; small frames share datagrams as they do
in life. ``portable`` is the code of libsodium and OpenSSL that other CPUs run.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as numbers

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.test_stages import Stage, run
from bench.rig import BATCH_SIZES, FRAME_SIZES, OUR_MAC, OUR_NAME, Rig, mac_of, peer_name, udp_frame
from crypto.ciphers import Cipher
from crypto.sealed import set_key
from native import ffi, lib

TRAIN_MAX = 60_000
KEYS = numbers(1)


@pytest.fixture(params=FRAME_SIZES, ids=lambda size: f"{size}B")
def size(request: pytest.FixtureRequest) -> int:
    """Bytes of an Ethernet frame."""
    value: int = request.param
    return value


@pytest.fixture(params=BATCH_SIZES, ids=lambda count: f"batch{count}")
def count(request: pytest.FixtureRequest) -> int:
    """Frames in a batch."""
    value: int = request.param
    return value


@pytest.fixture(params=["fastest", "portable"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which code does the work."""
    lib.wn_cipher_set_portable(request.param == "portable")
    yield request.param
    lib.wn_cipher_set_portable(0)


def path_bytes(size: int) -> int:
    """Bytes of the path's largest IP packet."""
    return 1500 if size < 1500 else 9100


def keyed_rig(cipher: Cipher, size: int) -> tuple[Rig, bytes]:
    """A node whose only neighbour dialled it, and the key they share."""
    rig = Rig(peers=1, macs=1)
    key = next(KEYS).to_bytes(32, "big")
    set_key(rig.datapath, 1, cipher, key, outbound=False)
    rig.datapath.set_mtu(1, path_bytes(size) - cipher.overhead, cipher.overhead)
    return rig, key


def sealed_trains(size: int, count: int, cipher: Cipher, key: bytes) -> Iterator[list[bytes]]:
    """Datagrams of the neighbour with fresh sequence numbers, again and again."""
    frame = udp_frame(size, dst_mac=OUR_MAC, src_mac=mac_of(0))
    record = peer_name(1) + OUR_NAME + len(frame).to_bytes(2, "big") + frame
    room = path_bytes(size) - lib.WN_IP_UDP_LEN - lib.WN_SEALED_MIN
    each = min(room // len(record), lib.WN_AGGREGATE_MAX)
    plain = [record * min(each, count - at) for at in range(0, count, each)]
    for first in numbers(0, len(plain)):
        out = []
        for place, records in enumerate(plain):
            length = lib.WN_SEALED_MIN + len(records)
            buffer = ffi.new("uint8_t[]", peer_name(1) + bytes(24) + records)
            lib.wn_datagram_seal(cipher, key, 1, first + place | 1 << 63, buffer, length)
            out.append(bytes(ffi.buffer(buffer, length)))
        yield out


def fill_trains(rig: Rig, datagrams: list[bytes]) -> None:
    """Join runs of equally long datagrams as the kernel does, and put them into the batch."""
    rig.batch.reset()
    step = len(datagrams[0])
    most = max(TRAIN_MAX // step, 1)
    for at in range(0, len(datagrams), most):
        train = datagrams[at : at + most]
        if rig.batch.put_datagram(b"".join(train), gso_size=step if len(train) > 1 else 0) < 0:
            raise ValueError("a batch does not hold that many datagrams")


@pytest.mark.benchmark(group="seal")
@pytest.mark.parametrize("cipher", [Cipher.SECRETBOX, Cipher.GCM], ids=lambda one: one.label)
def test_seal(
    benchmark: BenchmarkFixture, backend: str, cipher: Cipher, size: int, count: int
) -> None:
    """Messages gathered and encrypted in the batch's memory."""
    rig, _ = keyed_rig(cipher, size)
    frames = rig.captured(size, [0] * count)

    def prepare() -> None:
        rig.fill_captured(frames)
        rig.egress()

    benchmark.extra_info["way"] = f"{cipher.label} {backend}"
    work = lambda: lib.wn_seal(rig.datapath.c, rig.batch.c)  # noqa: E731
    run(benchmark, Stage(prepare, work), size=size, count=count)
    assert rig.drops() == {}
    assert rig.encapsulated_frames() == count


@pytest.mark.benchmark(group="open")
@pytest.mark.parametrize("cipher", [Cipher.SECRETBOX, Cipher.GCM], ids=lambda one: one.label)
def test_open(
    benchmark: BenchmarkFixture, backend: str, cipher: Cipher, size: int, count: int
) -> None:
    """Datagrams authenticated, checked for repeats and decrypted where they lie."""
    rig, key = keyed_rig(cipher, size)
    trains = sealed_trains(size, count, cipher, key)

    def prepare() -> None:
        fill_trains(rig, next(trains))

    benchmark.extra_info["way"] = f"{cipher.label} {backend}"
    work = lambda: lib.wn_open(rig.datapath.c, rig.batch.c)  # noqa: E731
    run(benchmark, Stage(prepare, work), size=size, count=count)
    assert rig.drops() == {}
