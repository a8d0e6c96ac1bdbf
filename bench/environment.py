"""What a number was measured on: commit, CPU, kernel, cores, and the settings that bend results.

Reads only; nothing here changes the machine.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

_SYSCTLS = (
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.tcp_congestion_control",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)

_OFFLOADS = (
    "rx-checksumming",
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp-segmentation",
    "rx-udp-gro-forwarding",
)


def commit() -> str:
    """Commit of the tree, with ``+`` behind it when files differ from it; "unknown" outside git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty else "")


def cpu() -> str:
    """The processor's name as the kernel gives it."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def sysctl(name: str) -> str:
    """Value of a sysctl in this network namespace, or "absent"."""
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        return path.read_text(encoding="utf-8").strip().replace("\t", " ")
    except OSError:
        return "absent"


def machine() -> dict[str, str | int]:
    """Commit, CPU, kernel and cores under the names that the summary uses."""
    return {
        "commit": commit(),
        "cpu": cpu(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def sysctls() -> dict[str, str]:
    """Every sysctl that changes these figures, from this network namespace."""
    return {name: sysctl(name) for name in _SYSCTLS}


def parse_offloads(ethtool_k: str) -> dict[str, str]:
    """``ethtool -k`` output → the offloads that matter, "on" or "off" (with "fixed" kept)."""
    found: dict[str, str] = {}
    for line in ethtool_k.splitlines():
        name, _, value = line.strip().partition(":")
        if name in _OFFLOADS:
            found[name] = value.strip()
    return found


def busy_percent(seconds: float = 1.0) -> float:
    """How busy all cores together are during the next ``seconds``.

    Who measures while others work measures their work too.
    """

    def read() -> tuple[int, int]:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # everything; idle and waiting for I/O

    total_before, idle_before = read()
    time.sleep(seconds)
    total, idle = read()
    return 100.0 * (1.0 - (idle - idle_before) / max(total - total_before, 1))
