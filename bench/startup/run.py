"""A pod's start: ADD by weave-net on a warm node, beside reference ``bridge`` + ``host-local``.

Ours and theirs take turns, one call after the other, so that both see the same machine. Every ADD
is followed by its DEL, so that tables stay small; that is not timed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from base.errors import WeftError
from bench.startup.plugins import Caller, Network, Pods
from cni.stub.build import TARGET as STUB
from lab.lab import Lab

REFERENCE: Final = Path("/usr/lib/cni")
ROUNDS: Final = 5
CALLS: Final = 40
MANY: Final = 200


class StartupResult(msgspec.Struct):
    """Seconds of single calls, by round."""

    stub: list[list[float]]
    add: list[list[float]]
    bridge: list[list[float]]
    host_local: list[list[float]]
    reference_host_local: list[list[float]]
    many_s: float
    many: int


async def run(rounds: int = ROUNDS, calls: int = CALLS, many: int = MANY) -> StartupResult:
    """All of it, in a lab of one host.

    Raises:
        WeftError: it cannot run here, a plugin failed, or an address was given twice.
    """
    if not (REFERENCE / "bridge").exists():
        raise WeftError("the package containernetworking-plugins is missing")
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as scratch:
        async with Lab(1) as lab:
            (host,) = lab.hosts
            await host.start_weft(peers=[], attach=False)
            folder = Path(scratch)
            with (
                Caller(host.namespace.net_path, folder, str(REFERENCE)) as caller,
                Pods(1) as one,
                Pods(many) as others,
            ):
                networks = _networks(folder, host.run_path)
                result = StartupResult([], [], [], [], [], 0.0, many)
                _turns(result, caller, networks, one.path(0), rounds, calls)
                took_s, addresses = caller.at_once(networks["weave"], others, folder)
                if len(set(addresses)) != many:
                    raise WeftError("an address was given twice")
                result.many_s = took_s
                for number in range(many):
                    caller.call("DEL", networks["weave"], f"many{number}")
    return result


def _networks(folder: Path, node: Path) -> dict[str, Network]:
    plugins = folder / "bin"
    plugins.mkdir()
    shutil.copy(STUB, plugins / "weave-net")
    shutil.copy(STUB, plugins / "weft-host-local")
    reach = {"routerSocket": str(node / "cni.sock"), "pendingDir": str(node / "pending-del")}

    def local(name: str) -> dict[str, Any]:
        return {
            "type": "host-local",
            "subnet": "10.210.0.0/16",
            "dataDir": str(folder / name),
            "routes": [{"dst": "0.0.0.0/0"}],
        }

    bridge = {"type": "bridge", "bridge": "theirs", "isGateway": True, "ipam": local("bridge")}
    return {
        "weave": Network.write(
            plugins / "weave-net", folder, "weave", {"type": "weave-net", **reach}
        ),
        "bridge": Network.write(REFERENCE / "bridge", folder, "theirs", bridge),
        "ours": Network.write(
            plugins / "weft-host-local", folder, "ours", {"ipam": local("ours"), **reach}
        ),
        "theirs": Network.write(
            REFERENCE / "host-local", folder, "reference", {"ipam": local("theirs")}
        ),
    }


def _turns(
    result: StartupResult,
    caller: Caller,
    networks: dict[str, Network],
    pod: str,
    rounds: int,
    calls: int,
) -> None:
    for network in networks.values():  # what is only done the first time
        caller.call("ADD", network, "warm", pod)
        caller.call("DEL", network, "warm", pod)
    for number in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in ("stub", *networks)}
        for turn in range(calls):
            container = f"pod{number}-{turn}"
            times["stub"].append(caller.call("VERSION", networks["weave"], container))
            for name, network in networks.items():
                times[name].append(caller.call("ADD", network, container, pod))
                caller.call("DEL", network, container, pod)
        result.stub.append(times["stub"])
        result.add.append(times["weave"])
        result.bridge.append(times["bridge"])
        result.host_local.append(times["ours"])
        result.reference_host_local.append(times["theirs"])
