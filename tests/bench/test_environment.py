"""What a result says about its machine, and how processes are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench import environment
from bench.system import usage


def test_machine_names_everything_that_the_summary_promises() -> None:
    facts = environment.machine()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert all(facts[key] for key in ("commit", "cpu", "kernel"))


def test_offloads_are_read_from_ethtool() -> None:
    shown = (
        "Features for eth0:\n"
        "tcp-segmentation-offload: on\n"
        "\ttx-tcp-segmentation: on\n"
        "generic-receive-offload: off [fixed]\n"
    )
    assert environment.parse_offloads(shown) == {
        "tcp-segmentation-offload": "on",
        "generic-receive-offload": "off [fixed]",
    }


def test_usage_sees_work_and_wake_ups() -> None:
    code = "import time\nfor _ in range(50): time.sleep(0.001)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    try:
        before = usage.usage([process.pid])
        deadline = time.monotonic() + 20
        spent = usage.usage([process.pid]) - before
        while spent.voluntary_switches < 50 and time.monotonic() < deadline:
            time.sleep(0.02)
            spent = usage.usage([process.pid]) - before
        assert spent.voluntary_switches >= 50
        assert spent.cpu_ns > 0
        assert 1 < usage.rss_peak_mb(process.pid) < 200
        time.sleep(0.2)
        first = usage.usage([process.pid])
        time.sleep(0.2)
        assert usage.usage([process.pid]) - first == usage.Usage(0, 0, 0)
    finally:
        process.kill()
        process.wait()
