"""The demo's part about addresses: the range divided by vote, a node lost, its space taken over."""

from __future__ import annotations

import time

import anyio
import msgspec

from base.errors import WeftError
from lab.host import Host
from lab.lab import Lab

_PRIME_TIMEOUT_S = 60
_GONE_TIMEOUT_S = 30.0


class Share(msgspec.Struct, frozen=True):
    """What one node owns of the range, and how much of it is in use; None: it does not run."""

    node: str
    ips: int
    percent: float
    in_use: int | None


class Addresses(msgspec.Struct, frozen=True):
    """How the range went. ``division_s`` is how long the nodes took to agree.

    ``before`` are the shares with all containers attached, ``after`` those once the space of
    ``lost``, a node that was killed, had been taken over by ``heir``.
    """

    range: str
    division_s: float
    before: tuple[Share, ...]
    lost: str
    heir: str
    taken_over: int
    after: tuple[Share, ...]


async def divide(lab: Lab) -> float:
    """Have the range divided by all nodes together; the seconds it took.

    Raises:
        CommandError: they do not agree.
    """
    start = anyio.current_time()
    timeout = ["--timeout", str(_PRIME_TIMEOUT_S)]
    failures: list[WeftError] = []

    async def prime(host: Host) -> None:
        try:
            await host.weft_command("prime", *timeout, "--http-addr", host.http_socket)
        except WeftError as err:
            failures.append(err)

    async with anyio.create_task_group() as group:
        for host in lab.hosts:
            group.start_soon(prime, host)
    if failures:
        raise failures[0]
    return anyio.current_time() - start


async def lose_one(lab: Lab, division_s: float) -> Addresses:
    """Kill the last node and have the first one take its space over.

    Raises:
        WeftError: the others do not notice, or the space is not taken.
    """
    heir, victim = lab.hosts[0], lab.hosts[-1]
    before = await _shares(lab.hosts)
    await victim.kill_weft()
    await _until_unreachable(heir, victim.name)
    said = await heir.weft_command("rmpeer", victim.name, "--http-addr", heir.http_socket)
    status = await heir.addresses()
    after = await _shares(lab.hosts[:-1])
    return Addresses(
        range=status["Range"],
        division_s=round(division_s, 2),
        before=before,
        lost=victim.name,
        heir=heir.name,
        taken_over=int(said.split()[0]),
        after=after,
    )


async def _shares(hosts: list[Host]) -> tuple[Share, ...]:
    """As the first of them sees the range, and how much each uses of its part."""
    status = await hosts[0].addresses()
    active = {host.name: (await host.addresses())["ActiveIPs"] for host in hosts}
    total = status["RangeNumIPs"]
    return tuple(
        Share(
            node=each["NickName"],
            ips=each["NumIPs"],
            percent=round(100 * each["NumIPs"] / total, 1),
            in_use=active.get(each["NickName"]),
        )
        for each in sorted(status["Peers"], key=lambda each: str(each["NickName"]))
    )


async def _until_unreachable(host: Host, nickname: str) -> None:
    limit = time.monotonic() + _GONE_TIMEOUT_S
    while True:
        peers = (await host.addresses())["Peers"]
        if not any(each["NickName"] == nickname and each["Reachable"] for each in peers):
            return
        if time.monotonic() > limit:
            raise WeftError(f"{host.name} still reaches {nickname}, which was killed")
        await anyio.sleep(0.2)
