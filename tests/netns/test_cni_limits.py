"""What a real node says when it cannot serve a container: codes of ADD and STATUS."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from lab.host import Host
from lab.lab import Lab
from tests.control.cni.runtime import STUB, Outcome, Pod

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]


def call(plugin: Path, host: Host, command: str, pod: Pod, **keys: Any) -> Outcome:
    config = {
        "cniVersion": "1.1.0",
        "name": "weave",
        "type": "weave-net",
        "routerSocket": str(host.run_path / "cni.sock"),
        "pendingDir": str(host.run_path / "pending-del"),
        **keys,
    }
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.container,
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
    }
    done = subprocess.run(
        [plugin],
        input=json.dumps(config).encode(),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.anyio
async def test_small_range_and_lonely_peer(tmp_path: Path) -> None:
    plugin = tmp_path / "weave-net"
    plugin.symlink_to(STUB)
    pods = [Pod(f"pod{number}") for number in range(7)]
    async with Lab(2) as lab:
        first, second = lab.hosts
        # alone, a range of six addresses: one is the bridge's
        await first.start_weft("--ipalloc-range", "10.32.0.0/29", peers=[], attach=False)
        call(plugin, first, "STATUS", pods[0]).nothing()
        for pod in pods[:5]:
            assert call(plugin, first, "ADD", pod).result["ips"]
        full = call(plugin, first, "ADD", pods[5], timeout=1).error
        assert full["code"] == 103
        assert "free address" in full["msg"]
        outside: dict[str, Any] = {"subnet": "192.168.0.0/24"}
        assert call(plugin, first, "ADD", pods[5], ipam=outside).code == 7
        taken = call(plugin, first, "ADD", pods[5], args={"cni": {"ips": ["10.32.0.3"]}}).error
        assert taken["code"] == 104
        call(plugin, first, "DEL", pods[0]).nothing()
        assert call(plugin, first, "ADD", pods[5]).result["ips"]
        for pod in pods:
            call(plugin, first, "DEL", pod).nothing()
        # one of three that have to agree
        await second.start_weft("--ipalloc-init", "consensus=3", peers=[], attach=False)
        alone = call(plugin, second, "ADD", pods[6], timeout=1).error
        assert alone["code"] == 11
        assert pods[6].links() == {"lo"}
        # somebody waits: ADD cannot be served now
        waiting = await anyio.open_process(
            [plugin],
            env={
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": "waits",
                "CNI_NETNS": pods[6].netns,
                "CNI_IFNAME": "eth0",
            },
        )
        assert waiting.stdin is not None
        config = {"name": "weave", "routerSocket": str(second.run_path / "cni.sock")}
        await waiting.stdin.send(json.dumps(config).encode())
        await waiting.stdin.aclose()
        with anyio.fail_after(20):
            while call(plugin, second, "STATUS", pods[6]).status == 0:  # noqa: ASYNC110
                await anyio.sleep(0.1)
        assert call(plugin, second, "STATUS", pods[6]).code == 50
        waiting.kill()
        await waiting.wait()
        await waiting.aclose()
    for pod in pods:
        pod.close()
