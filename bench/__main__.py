"""``python -m bench [PART]...``: run benchmarks, keep and print results.

Parts: stages, mesh, ciphers, ipam, attach, startup, system; all of them run when none is named. A
part that is left out is taken from the last run if it is there.
Exit codes: 0 measured (whatever the verdicts), 1 something could not be measured.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from base.errors import ConfigError, WeftError
from bench import environment, report
from bench.attach.run import AttachResult
from bench.attach.run import run as run_attach
from bench.figures import (
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

#: More than this, before anything was started, and results are marked as doubtful.
BUSY_PERCENT = 10.0
BUILD = environment.ROOT / "build" / "bench"
RESULTS = environment.RESULTS


def run_stages() -> BenchmarkFile:
    """bench/micro and bench/pipeline under pytest-benchmark.

    Raises:
        WeftError: a benchmark failed; its output has been printed.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "stages.json"
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
    return msgspec.json.decode(file.read_bytes(), type=BenchmarkFile)


def run_mesh() -> MeshResult:
    """bench/mesh.

    Raises:
        WeftError: it cannot run here, or the lab failed.
    """
    return MeshResult(node=anyio.run(measure_all), scale=scale.measure())


@dataclass(slots=True, frozen=True)
class Part:
    """One part: ``run`` measures and gives what ``kind`` holds, ``add`` makes figures of that.

    Its result is kept as ``bench/results/<name>.json``. ``run`` raises WeftError where it cannot.
    """

    name: str
    about: str
    kind: type[Any]
    run: Callable[[], Any]
    add: Callable[[Figures, Any], None]

    @property
    def file(self) -> Path:
        """Where the result is kept."""
        return RESULTS / f"{self.name}.json"

    def measure(self) -> None:
        """Run it, and keep the result."""
        print(f"{self.name}: {self.about}", flush=True)
        result = self.run()
        self.file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))

    def read(self) -> Any:
        """The result that is kept; None when it was never measured."""
        if not self.file.exists():
            return None
        return msgspec.json.decode(self.file.read_bytes(), type=self.kind)


#: In the order in which they are measured.
PARTS: Final = {
    part.name: part
    for part in (
        Part("stages", "single stages and the pipeline", BenchmarkFile, run_stages, add_stages),
        Part(
            "mesh",
            "a real node among 100; handshakes, convergence, growth",
            MeshResult,
            run_mesh,
            add_mesh,
        ),
        Part(
            "ciphers",
            "plain, secretbox, AES-256-GCM",
            CipherResult,
            lambda: anyio.run(run_ciphers, BUILD),
            add_ciphers,
        ),
        Part(
            "ipam",
            "durable allocations, a whole range",
            IpamResult,
            lambda: run_ipam(BUILD),
            add_ipam,
        ),
        Part(
            "attach",
            "containers by weft, by ip, by the reference plugins",
            AttachResult,
            lambda: run_attach(BUILD),
            add_attach,
        ),
        Part(
            "startup",
            "CNI plugins beside the reference's",
            StartupResult,
            lambda: anyio.run(run_startup),
            add_startup,
        ),
        Part(
            "system",
            "raw veth, kernel VXLAN, weft",
            SystemResult,
            lambda: anyio.run(run_system, BUILD),
            add_system,
        ),
    )
}


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
    chosen = [part for part in PARTS.values() if not parts or part.name in parts]
    for part in chosen:
        part.file.unlink(missing_ok=True)
    for part in chosen:
        part.measure()
    results = {name: part.read() for name, part in PARTS.items()}
    figures = Figures()
    for name, result in results.items():
        if result is not None:
            PARTS[name].add(figures, result)
    system: SystemResult | None = results["system"]
    stages: BenchmarkFile | None = results["stages"]
    benchmarks = stages.benchmarks if stages is not None else []
    flat = summary(figures, system)
    flat["busy_before_percent"] = round(busy_percent, 1)
    text = msgspec.json.format(msgspec.json.encode(flat))
    (RESULTS / "summary.json").write_bytes(text + b"\n")
    pictures = report.plot(RESULTS, system, benchmarks)
    report.print_report(figures, flat, system, benchmarks, results["mesh"])
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
