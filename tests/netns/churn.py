"""Containers that come and go on a lab's hosts while processes are killed; who holds what.

Everything that was promised is written down: an address belongs to a container from the answer to
its attachment until its detachment is asked for. Like a runtime, a container's end asks for the
detachment again until the node answers.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter

import anyio
import httpx

from lab.guest import Guest
from lab.host import Host, Role
from lab.lab import Lab
from tests.netns.addresses import client, kill

#: Each with the addresses that it asks for.
WISHES = (("net:default",), ("net:10.32.9.0/24",), ("net:default", "net:10.32.9.0/24"))
INTERFACES = ("ethwe", "eth1")
ROLES: tuple[Role, ...] = ("control", "router", "launch")
_ATTACH_S = 10.0
#: What a node may answer while it is whole: done, or (503) not now.
_ANSWERS = (200, 503)


class Churn:
    """``run`` it for a while; then nothing is attached or exposed, and counts tell what was done.

    Raises:
        AssertionError: an address was promised twice, an interface lacks it, or a node answered
            what it never should.
    """

    def __init__(self, lab: Lab, options: tuple[str, ...], seed: int, slots: int = 3) -> None:
        self.counts: Counter[str] = Counter()
        self._lab = lab
        self._options = options
        self._seed = seed
        self._slots = slots
        self._holders: dict[str, str] = {}
        self._over = False
        self._calm = anyio.Event()

    async def run(self, seconds: float) -> None:
        """Come, go and kill for so long; then let everything end in peace."""
        async with anyio.create_task_group() as tasks:
            for host in self._lab.hosts:
                for slot in range(self._slots):
                    tasks.start_soon(self._live, host, slot)
                tasks.start_soon(self._expose, host)
            rng = random.Random(self._seed)
            deadline = anyio.current_time() + seconds
            while anyio.current_time() < deadline:
                await anyio.sleep(rng.uniform(0.5, 4.0))
                await self._kill(rng.choice(self._lab.hosts), rng.choice(ROLES))
            self._over = True

    async def _kill(self, host: Host, role: Role) -> None:
        if role == "launch":
            assert host.weft is not None
            os.kill(host.weft.pid, signal.SIGKILL)
            await kill(host)
            others = [each.address for each in self._lab.hosts if each is not host]
            await host.start_weft(*self._options, peers=others)
        elif pids := host.pids(role):
            os.kill(pids[0], signal.SIGKILL)
        self.counts[f"killed {role}"] += 1

    # --- containers ------------------------------------------------------------------------------

    async def _live(self, host: Host, slot: int) -> None:
        rng = random.Random(f"{self._seed} {host.name} {slot}")
        number = 0
        async with client(host, 30.0) as asking:
            while not self._over:
                number += 1
                guest = self._lab.new_guest(host, f"{host.name}-{slot}-{number}")
                used = INTERFACES[: rng.choice((1, 1, 1, 2))]
                for ifname in used:
                    for _ in range(rng.choice((1, 1, 2))):
                        await self._attach(asking, guest, ifname, rng.choice(WISHES))
                await anyio.sleep(rng.uniform(0.0, 1.0))
                if dies_first := rng.random() < 0.3:
                    guest.end()
                for ifname in used:
                    await self._detach(asking, guest, ifname)
                if not dies_first:
                    found = (await guest.run("ip", "-o", "link")).stdout.splitlines()
                    assert len(found) == 1, f"{guest.name} was detached and has {found}"
                    guest.end()
                self.counts["containers"] += 1

    async def _attach(
        self, asking: httpx.AsyncClient, guest: Guest, ifname: str, wishes: tuple[str, ...]
    ) -> None:
        body = {
            "pid": guest.pid,
            "ifname": ifname,
            "addresses": wishes,
            "timeout_s": _ATTACH_S,
        }
        try:
            answer = await asking.post(f"/attach/{guest.name}", content=json.dumps(body))
        except httpx.HTTPError:
            self.counts["attach without an answer"] += 1
            return  # nothing was promised
        self.counts[f"attach {answer.status_code}"] += 1
        assert answer.status_code in _ANSWERS, f"{guest.name}: {answer.text}"
        if answer.status_code == 200:
            holder = f"{guest.name} {ifname}"
            for address in answer.json()["Addresses"]:
                self._promised(address, holder)
            there = (await guest.run("ip", "-4", "-o", "addr", "show", "dev", ifname)).stdout
            assert all(f" {each} " in there for each in answer.json()["Addresses"]), there

    def _promised(self, address: str, holder: str) -> None:
        other = self._holders.setdefault(address, holder)
        assert other == holder, f"{address} of {other} was given to {holder}, too"

    def _gone(self, holder: str) -> None:
        self._holders = {key: value for key, value in self._holders.items() if value != holder}

    async def _detach(self, asking: httpx.AsyncClient, guest: Guest, ifname: str) -> None:
        self._gone(f"{guest.name} {ifname}")
        query = {"ifname": ifname, "all": "true"}
        await self._until_done(asking, "DELETE", f"/attach/{guest.name}", query)

    # --- the host --------------------------------------------------------------------------------

    async def _expose(self, host: Host) -> None:
        rng = random.Random(f"{self._seed} {host.name}")
        async with client(host, 30.0) as asking:
            while not self._over:
                try:
                    answer = await asking.post("/expose")
                except httpx.HTTPError:
                    await anyio.sleep(0.2)
                    continue
                self.counts[f"expose {answer.status_code}"] += 1
                assert answer.status_code in _ANSWERS, f"{host.name}: {answer.text}"
                if answer.status_code == 200:
                    for address in answer.text.split():
                        self._promised(address, host.name)
                await anyio.sleep(rng.uniform(0.0, 1.5))
                if rng.random() < 0.5:
                    self._gone(host.name)
                    await self._until_done(asking, "DELETE", "/expose", {})
            self._gone(host.name)
            await self._until_done(asking, "DELETE", "/expose", {})

    async def _until_done(
        self, asking: httpx.AsyncClient, method: str, path: str, query: dict[str, str]
    ) -> None:
        """Ask until the node answers that it is done."""
        refusals = 0
        with anyio.fail_after(120.0):
            while True:
                try:
                    answer = await asking.request(method, path, params=query)
                except httpx.HTTPError:
                    await anyio.sleep(0.2)
                    continue
                if answer.is_success:
                    return
                self.counts[f"{method} {answer.status_code}"] += 1
                refusals += answer.status_code not in _ANSWERS
                assert not refusals, f"{method} {path}: {answer.text}"
                await anyio.sleep(0.2)
