"""Pods come and go at random on three hosts, controls die meanwhile: nothing is left in the end."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from lab.host import Host
from lab.lab import Lab
from tests.control.cni.runtime import STUB, Outcome, Pod

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(600)]

BATCHES = 20
CALLS = 50
PODS = 8
THREADS = 6


@dataclass
class Container:
    """A pod and what the runtime believes of it: "absent", "present" or "unknown"."""

    plugin: Path
    host: Host
    pod: Pod
    state: str = "absent"
    result: dict[str, Any] | None = None

    def call(self, command: str, kill_after_s: float = 0.0, **keys: Any) -> Outcome:
        """Call our plugin; killed after a while, or not."""
        config = {
            "cniVersion": "1.1.0",
            "name": "weave",
            "type": "weave-net",
            "routerSocket": str(self.host.run_path / "cni.sock"),
            "pendingDir": str(self.host.run_path / "pending-del"),
            **keys,
        }
        argv = ["timeout", "-s", "KILL", str(kill_after_s)] if kill_after_s else []
        done = subprocess.run(
            [*argv, self.plugin],
            input=json.dumps(config).encode(),
            env={
                "PATH": os.environ["PATH"],
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": self.pod.container,
                "CNI_NETNS": self.pod.netns,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": "/usr/lib/cni",
            },
            capture_output=True,
            check=False,
            timeout=60,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    def step(self, dice: random.Random) -> None:
        """One call, as a runtime may make it in this state."""
        command = dice.choice(["ADD", "ADD", "DEL", "CHECK", "killed ADD"])
        if command == "DEL" or self.state == "unknown":
            self.call("DEL").nothing()
            self.state = "absent"
        elif command == "ADD":
            self.add()
        elif command == "CHECK" and self.state == "present":
            outcome = self.call("CHECK", prevResult=self.result)
            assert outcome.status == 0 or outcome.code == 11, outcome
        elif command == "killed ADD" and self.state == "absent":
            self.call("ADD", kill_after_s=dice.uniform(0.001, 0.02))
            self.state = "unknown"

    def add(self) -> None:
        """ADD; again, it has to give the same address."""
        outcome = self.call("ADD")
        if outcome.status:
            assert outcome.code == 11, outcome
            if self.state == "absent":
                self.state = "unknown"
            return
        assert self.state == "absent" or outcome.result["ips"] == (self.result or {})["ips"]
        self.state, self.result = "present", outcome.result


@pytest.mark.anyio
async def test_a_thousand_calls(tmp_path: Path) -> None:
    plugin = tmp_path / "weave-net"
    plugin.symlink_to(STUB)
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    async with Lab(3) as lab:
        for host in lab.hosts:
            others = [other.address for other in lab.hosts if other is not host]
            await host.start_weft(peers=others, attach=False)
        await lab.hosts[0].wait_established(2)
        containers = [
            Container(plugin, host, Pod(f"{host.name}-pod{number}"))
            for host in lab.hosts
            for number in range(PODS)
        ]
        with ThreadPoolExecutor(THREADS) as threads:
            for batch in range(BATCHES):
                dying = lab.hosts[batch // 4 % 3] if batch % 4 == 3 else None
                await _batch(containers, threads, dice, dying)
                _distinct(containers)
                await anyio.to_thread.run_sync(_collect, containers, dice.choice(lab.hosts))
            for one in containers:
                await anyio.to_thread.run_sync(one.call, "DEL")
        for host in lab.hosts:
            await _nothing_left(host)
        for one in containers:
            assert one.pod.links() == {"lo"}
            one.pod.close()


async def _batch(
    containers: list[Container],
    threads: ThreadPoolExecutor,
    dice: random.Random,
    dying: Host | None,
) -> None:
    """Calls, those for one container one after another; a control may die in the middle."""
    shuffled = dice.choices(range(len(containers)), k=CALLS)
    seeds = [dice.randrange(2**32) for _ in containers]

    def work(index: int) -> None:
        own = random.Random(seeds[index])
        for _ in range(shuffled.count(index)):
            containers[index].step(own)

    running = [threads.submit(work, index) for index in range(len(containers))]
    if dying is not None:
        await anyio.sleep(dice.uniform(0, 0.2))
        dying.kill_control()
    for one in running:
        await anyio.to_thread.run_sync(one.result)


def _present(containers: list[Container]) -> Iterator[Container]:
    return (one for one in containers if one.state == "present")


def _distinct(containers: list[Container]) -> None:
    addresses = [
        (one.result or {})["ips"][0]["address"].partition("/")[0] for one in _present(containers)
    ]
    assert len(addresses) == len(set(addresses))


def _collect(containers: list[Container], host: Host) -> None:
    """GC, which a runtime never does beside other calls; it takes what is in doubt."""
    mine = [one for one in containers if one.host is host]
    valid = [{"containerID": one.pod.container, "ifname": "eth0"} for one in _present(mine)]
    keys: dict[str, Any] = {"cni.dev/valid-attachments": valid}
    outcome = mine[0].call("GC", **keys)
    assert outcome.status == 0 or outcome.code == 11, outcome


async def _nothing_left(host: Host) -> None:
    def busy() -> bool:
        waiting = list((host.run_path / "pending-del").iterdir())
        return bool(waiting) or any(port.startswith("vethwepl") for port in host.ports())

    with anyio.fail_after(60):
        while busy():  # noqa: ASYNC110 - another process works
            await anyio.sleep(0.1)
    await host.weft_command("audit", "--http-addr", host.http_socket)  # fails if it finds any
    shown = await host.weft_command("ps", "--http-addr", host.http_socket)
    assert [line for line in shown.splitlines() if not line.startswith("weave:expose")] == []
