"""What encryption costs: clusters of two nodes each, in clear and with each cipher, in one lab.

The clusters know nothing of each other and only one of them works at a time. All have the same
container MTU. Every round visits each of them once, in an order that rotates.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec

from bench.system import load
from bench.system.load import LoadError, Pair
from bench.system.run import CONTAINER_MTU, Settings
from lab import preflight
from lab.lab import Lab

#: Variant → (whether there is a password, the cipher to offer).
VARIANTS = {"plain": (False, None), "secretbox": (True, "secretbox"), "gcm": (True, "aes-256-gcm")}
_PASSWORD = "a benchmark's password"


class CipherResult(msgspec.Struct):
    """By variant and round; ``ciphers`` is what each cluster's report names."""

    tcp1_gbps: dict[str, list[float]]
    udp64_pps: dict[str, list[float]]
    ciphers: dict[str, str]


async def run(build_dir: Path) -> CipherResult:
    """Build the lab, measure, and leave nothing behind.

    Raises:
        ConfigError: not root, a tool is missing.
        WeftError: something in the lab does not work, or a cipher is not available here.
    """
    settings = Settings.from_environment()
    preflight.check((*preflight.ALWAYS, "iperf3", "nft"))
    tool = load.build_tool("udp_blast", build_dir)
    names = list(VARIANTS)
    result = CipherResult({name: [] for name in names}, {name: [] for name in names}, {})
    async with Lab(nodes=2 * len(names)) as lab:
        pairs = {}
        for index, (variant, (secret, cipher)) in enumerate(VARIANTS.items()):
            first, second = lab.hosts[2 * index : 2 * index + 2]
            for host, peers in ((first, []), (second, [first.address])):
                await host.start_weft(
                    mtu=CONTAINER_MTU,
                    peers=peers,
                    password=_PASSWORD if secret else None,
                    cipher=cipher,
                )
            await second.wait_established(1)
            (connection,) = await second.connections()
            result.ciphers[variant] = connection["Cipher"]
            if result.ciphers[variant] != (cipher or "none"):
                raise LoadError(f"{variant}: {result.ciphers[variant]} was agreed instead")
            pairs[variant] = Pair(variant, first.containers[0], second.containers[0])
        for pair in pairs.values():
            await load.rtt_us(pair, count=20, interval_s=0.01)
            await load.tcp_gbps(pair, streams=1, seconds=1)
        for number in range(settings.rounds):
            print(f"  ciphers, round {number + 1} of {settings.rounds}", flush=True)
            turn = number % len(names)
            for variant in names[turn:] + names[:turn]:
                pair = pairs[variant]
                gbps = await load.tcp_gbps(pair, streams=1, seconds=settings.tcp_s)
                rate = await load.udp_pps(
                    pair, tool, payload=load.UDP_PAYLOAD_BYTES, seconds=settings.udp_s
                )
                result.tcp1_gbps[variant].append(gbps)
                result.udp64_pps[variant].append(rate.received_pps)
    return result


if __name__ == "__main__":
    print(msgspec.json.encode(anyio.run(run, Path("build/bench"))).decode())
