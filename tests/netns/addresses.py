"""Address allocation of a lab's hosts, asked over the API, which is quicker than a command each."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx

from lab.guest import Guest
from lab.host import Host
from lab.lab import Lab
from tests.netns.support import until

#: For what takes a second on an idle machine.
PATIENCE_S = 45.0
RANGE = ("--ipalloc-range", "10.32.0.0/16")

Ring = list[tuple[int, str]]


@asynccontextmanager
async def client(host: Host, timeout_s: float = 60.0) -> AsyncIterator[httpx.AsyncClient]:
    """For many requests."""
    transport = httpx.AsyncHTTPTransport(
        uds=str(host.run_path / "weave.sock"),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )
    async with httpx.AsyncClient(
        transport=transport, base_url="http://weft", timeout=timeout_s
    ) as made:
        yield made


async def ask(host: Host, method: str, path: str, **more: Any) -> httpx.Response:
    """One request."""
    async with client(host) as asking:
        return await asking.request(method, path, **more)


async def allocate(host: Host, ident: str) -> str:
    """An address with prefix length, waited for."""
    answer = await ask(host, "POST", f"/ip/{ident}")
    assert answer.status_code == 200, answer.text
    return answer.text


async def allocate_many(host: Host, idents: Iterable[str], at_once: int = 32) -> dict[str, str]:
    """Addresses by ident."""
    given: dict[str, str] = {}
    limit = anyio.CapacityLimiter(at_once)
    async with client(host) as asking, anyio.create_task_group() as tasks:

        async def one(ident: str) -> None:
            async with limit:
                answer = await asking.post(f"/ip/{ident}")
                assert answer.status_code == 200, answer.text
                given[ident] = answer.text

        for ident in idents:
            tasks.start_soon(one, ident)
    return given


async def owned(host: Host) -> dict[str, list[str]]:
    """What the node says that it has handed out."""
    found = (await ask(host, "GET", "/ip")).json()["owned"] or []
    return {each["containerid"]: each["addrs"] for each in found}


async def report(host: Host) -> dict[str, Any]:
    """The node's report."""
    answer = await ask(host, "GET", "/report", headers={"Accept": "application/json"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def status(host: Host, part: str = "") -> str:
    """A status page, whatever its code: it says 503 while the node is not ready."""
    return (await ask(host, "GET", f"/status/{part}" if part else "/status")).text


async def ring(host: Host) -> Ring:
    """Beginnings and owners of the pieces of the range; empty while there is no ring."""
    entries = (await report(host))["IPAM"]["Entries"] or []
    return [(each["Token"], each["Peer"]) for each in entries]


async def shares(host: Host) -> dict[str, int]:
    """How many addresses each peer owns, as this one sees it."""
    answer = await ask(host, "GET", "/status/ipam", headers={"Accept": "application/json"})
    found: Counter[str] = Counter()
    for each in answer.json()["Peers"]:
        found[each["Name"]] += each["NumIPs"]
    return dict(found)


async def until_one_ring(hosts: Sequence[Host]) -> Ring:
    """Wait until all of them see the same one."""
    seen: list[Ring] = []

    async def same() -> bool:
        seen[:] = [await ring(host) for host in hosts]
        return bool(seen[0]) and all(each == seen[0] for each in seen)

    await until(same, "one ring everywhere", PATIENCE_S, poll_s=0.2)
    return seen[0]


async def until_up(host: Host) -> None:
    """Wait until a control process answers again and has its router."""

    async def up() -> bool:
        try:
            return bool((await report(host))["Ready"])
        except httpx.HTTPError:
            return False

    await until(up, f"{host.name} is ready", PATIENCE_S, poll_s=0.1)


async def until_refused(hosts: Sequence[Host], reason: str) -> None:
    """Wait until one of them says so of a connection."""

    async def said() -> bool:
        return any([reason in (await status(host, "connections")) for host in hosts])

    await until(said, f"status says {reason!r}", PATIENCE_S, poll_s=0.2)


async def kill(host: Host) -> None:
    """SIGKILL for every process of a node at once."""
    assert host.weft is not None
    host.weft.kill_group(signal.SIGKILL)
    await host.weft.wait(10.0)
    host.weft.close()
    host.weft = None

    def dead() -> bool:
        return not any(host.pids(role) for role in ("launch", "control", "router"))

    await until(dead, f"everything of {host.name} is dead", 20.0)


def seeds(hosts: Iterable[Host]) -> tuple[str, str]:
    """The option that divides the range among these."""
    return ("--ipalloc-init", f"seed={','.join(host.peer_name for host in hosts)}")


async def attach_all(lab: Lab, *words: str) -> list[Guest]:
    """A guest on each host, attached at once."""
    guests = [lab.new_guest(host, f"g{host.index}") for host in lab.hosts]
    async with anyio.create_task_group() as tasks:
        for guest in guests:
            tasks.start_soon(guest.attach, *words)
    return guests


async def until_all_reach(guests: Sequence[Guest]) -> None:
    """Wait until each is answered by every other."""
    for one in guests:
        for other in guests:
            if one is not other:
                what = f"{one.name} reaches {other.name}"
                await until(partial(_reaches, one, other.ipv4), what, PATIENCE_S)


async def _reaches(one: Guest, address: str) -> bool:
    return (await one.ping(address, count=1, wait_s=1.0)).ok


async def host_reaches(host: Host, address: str, wait_s: float = 1.0) -> bool:
    """Whether the host itself gets an answer."""
    argv = ("ping", "-n", "-c", "1", "-W", f"{wait_s:g}", address)
    return (await host.run(*argv, check=False)).returncode == 0


def clean(audit: dict[str, list[str]]) -> bool:
    """Whether nothing is left over and nothing is wrong."""
    return not audit["Leaks"] and not audit["Problems"]
