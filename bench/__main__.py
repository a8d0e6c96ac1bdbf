"""``python -m bench [PART]...``: run benchmarks, keep and print results.

Parts: stages, mesh, ciphers, ipam, attach, startup, system; all of them run when none is named. A
part that is left out is taken from the last run if it is there.
Exit codes: 0 measured (whatever the verdicts), 1 something could not be measured.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from base.errors import ConfigError, WeftError
from bench import environment, report
from bench.attach.run import AttachResult
from bench.attach.run import run as run_attach
from bench.figures import (
    Benchmark,
    BenchmarkFile,
    Figures,
    add_attach,
    add_ciphers,
    add_ipam,
    add_mesh,
    add_stages,
    add_startup,
    add_system,
)
from bench.ipam.run import IpamResult
from bench.ipam.run import run as run_ipam
from bench.mesh import scale
from bench.mesh.node_cost import measure_all
from bench.mesh.result import MeshResult
from bench.startup.run import StartupResult
from bench.startup.run import run as run_startup
from bench.system.ciphers import CipherResult
from bench.system.ciphers import run as run_ciphers
from bench.system.run import SystemResult
from bench.system.run import run as run_system

PARTS = ("stages", "mesh", "ciphers", "ipam", "attach", "startup", "system")
#: More than this, before anything was started, and results are marked as doubtful.
BUSY_PERCENT = 10.0
BUILD = environment.ROOT / "build" / "bench"
RESULTS = environment.RESULTS

_Result = TypeVar("_Result")


def measure_stages(file: Path) -> None:
    """Run bench/micro and bench/pipeline under pytest-benchmark.

    Raises:
        WeftError: a benchmark failed; its output has been printed.
    """
    print("stages and pipeline", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["--benchmark-enable", "--benchmark-disable-gc", "--benchmark-sort=name"]
    command += ["--benchmark-columns=median,iqr,rounds", f"--benchmark-json={file}"]
    done = subprocess.run(
        [*command, "bench/micro", "bench/pipeline"],
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (RESULTS / "stages.txt").write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise WeftError("a stage benchmark failed")


def measure_mesh(file: Path) -> None:
    """Run bench/mesh.

    Raises:
        WeftError: it cannot run here, or the lab failed.
    """
    print("mesh: a real node among 100; handshakes, convergence, growth", flush=True)
    result = MeshResult(node=anyio.run(measure_all), scale=scale.measure())
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def measure_ciphers(file: Path) -> None:
    """Run bench/system/ciphers.

    Raises:
        WeftError: it cannot run here, or the lab failed.
    """
    print("ciphers: plain, secretbox, AES-256-GCM", flush=True)
    result = anyio.run(run_ciphers, BUILD)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def measure_system(file: Path) -> None:
    """Run bench/system.

    Raises:
        WeftError: it cannot run here, or the lab failed.
    """
    print("system: raw veth, kernel VXLAN, weft", flush=True)
    result = anyio.run(run_system, BUILD)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def measure_ipam(file: Path) -> None:
    """Run bench/ipam.

    Raises:
        WeftError: it cannot run here, or control failed.
    """
    print("ipam: durable allocations, a whole range", flush=True)
    result = run_ipam(BUILD)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def measure_attach(file: Path) -> None:
    """Run bench/attach.

    Raises:
        WeftError: it cannot run here, or control failed.
    """
    print("attach: containers by weft, by ip, by the reference plugins", flush=True)
    result = run_attach(BUILD)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def measure_startup(file: Path) -> None:
    """Run bench/startup.

    Raises:
        WeftError: it cannot run here, or a plugin failed.
    """
    print("startup: CNI plugins beside the reference's", flush=True)
    result = anyio.run(run_startup)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def summary(figures: Figures, system: SystemResult | None) -> dict[str, Any]:
    """The flat object of summary.json."""
    flat: dict[str, Any] = dict(figures.values)
    for key, (low, high) in figures.spread.items():
        flat[f"{key}_min"], flat[f"{key}_max"] = round(low, 4), round(high, 4)
    flat.update(environment.machine())
    flat["runs"] = len(system.tcp1_gbps["weft"]) if system is not None else 0
    if system is not None:
        for name in ("congestion_control", "container_mtu", "underlay_mtu"):
            flat[name] = system.settings[name]
        flat["bridge_nf_call_iptables"] = system.settings["net/bridge/bridge-nf-call-iptables"]
        for side in ("container_offloads", "underlay_offloads_found"):
            for name, state in system.settings[side].items():
                prefix = "container" if side == "container_offloads" else "underlay"
                flat[f"{prefix}_{name.replace('-', '_')}"] = state
    return flat


def read_result(part: str, kind: type[_Result]) -> _Result | None:
    """What is in bench/results of one part; None when it was never measured."""
    file = RESULTS / f"{part}.json"
    return msgspec.json.decode(file.read_bytes(), type=kind) if file.exists() else None


_MEASURE = {
    "stages": measure_stages,
    "mesh": measure_mesh,
    "ciphers": measure_ciphers,
    "ipam": measure_ipam,
    "attach": measure_attach,
    "startup": measure_startup,
    "system": measure_system,
}


def main(parts: list[str]) -> None:
    """Measure ``parts`` and report everything.

    Raises:
        ConfigError: an unknown part.
        WeftError: something could not be measured.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]}: give {', '.join(PARTS)} or nothing")
    start = time.monotonic()
    busy_percent = environment.busy_percent()
    if busy_percent > BUSY_PERCENT:
        print(f"warning: the machine is {busy_percent:.0f} % busy with other things", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for part in parts or PARTS:
        (RESULTS / f"{part}.json").unlink(missing_ok=True)
    for part in PARTS:
        if not parts or part in parts:
            _MEASURE[part](RESULTS / f"{part}.json")
    figures = Figures()
    if (system := read_result("system", SystemResult)) is not None:
        add_system(figures, system)
    if (ciphers := read_result("ciphers", CipherResult)) is not None:
        add_ciphers(figures, ciphers)
    if (mesh := read_result("mesh", MeshResult)) is not None:
        add_mesh(figures, mesh)
    stages = read_result("stages", BenchmarkFile)
    benchmarks: list[Benchmark] = stages.benchmarks if stages is not None else []
    add_stages(figures, benchmarks)
    if (ipam := read_result("ipam", IpamResult)) is not None:
        add_ipam(figures, ipam)
    if (attach := read_result("attach", AttachResult)) is not None:
        add_attach(figures, attach)
    if (startup := read_result("startup", StartupResult)) is not None:
        add_startup(figures, startup)
    flat = summary(figures, system)
    flat["busy_before_percent"] = round(busy_percent, 1)
    text = msgspec.json.format(msgspec.json.encode(flat))
    (RESULTS / "summary.json").write_bytes(text + b"\n")
    pictures = report.plot(RESULTS, system, benchmarks)
    report.print_report(figures, flat, system, benchmarks, mesh)
    written = ["summary.json", *(picture.name for picture in pictures)]
    print(f"{time.monotonic() - start:.0f} s; bench/results: {', '.join(written)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WeftError as err:
        print(f"bench: {err}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
