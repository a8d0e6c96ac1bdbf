"""Processes of three nodes are killed while containers come and go: nothing is ever left over.

For a longer run: WEFT_CHURN_S=300, with WEFT_CHURN_SEED=... for other random choices. How requests
and kills fall together is not repeatable by the seed alone.

Source of truth: the promise of weft audit (docs/attach.md); node specification 6.4.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from lab.host import BRIDGE, Host
from lab.lab import Lab
from tests.netns.addresses import (
    PATIENCE_S,
    RANGE,
    ask,
    attach_all,
    clean,
    owned,
    report,
    seeds,
    shares,
    status,
    until_all_reach,
    until_one_ring,
    until_up,
)
from tests.netns.churn import Churn
from tests.netns.support import netns, until

SECONDS = float(os.environ.get("WEFT_CHURN_S", "60"))
SEED = int(os.environ.get("WEFT_CHURN_SEED") or random.SystemRandom().randrange(1 << 32))

pytestmark = [*netns(SECONDS + 240), pytest.mark.patient]


async def _leftovers(host: Host) -> list[str]:
    """All that a node without containers should not have."""
    found = [f"address {each}" for each in (await owned(host)).items()]
    found += [f"port {name}" for name in host.ports() if name != "vethwe-bridge"]
    links = (await host.run("ip", "-o", "link")).stdout
    found += [f"link {line}" for line in links.splitlines() if "vethwep" in line]
    addresses = (await host.run("ip", "-4", "-o", "addr", "show", "dev", BRIDGE)).stdout
    found += [f"address of the bridge {line}" for line in addresses.splitlines()]
    attached = (await ask(host, "GET", "/attach")).json()
    found += [f"record {each}" for each in attached["Attachments"]]
    for role in ("control", "router", "launch"):
        found += [text for pid in host.pids(role) for text in _namespaces_held(pid)]
    return found


def _namespaces_held(pid: int) -> list[str]:
    own = Path(f"/proc/{pid}/ns/net").readlink()
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = entry.readlink()
            if str(target).startswith("net:") and target != own:
                found.append(f"namespace {target} held by {pid}")
    return found


async def _nothing_left(host: Host, rules: str) -> bool:
    ruleset = (await host.run("nft", "list", "ruleset")).stdout
    return not await _leftovers(host) and ruleset == rules


async def test_killed_at_any_time_nothing_is_left_over() -> None:
    print(f"WEFT_CHURN_SEED={SEED}")
    async with Lab(3, containers=0) as lab:
        options = (*RANGE, *seeds(lab.hosts))
        await lab.start_weft(*options, mesh=True, connect_timeout_s=None)
        await until_one_ring(lab.hosts)
        rules = [(await host.run("nft", "list", "ruleset")).stdout for host in lab.hosts]
        churn = Churn(lab, options, SEED)
        await churn.run(SECONDS)
        print(dict(sorted(churn.counts.items())))
        assert churn.counts["attach 200"] > SECONDS / 4
        for host, wanted in zip(lab.hosts, rules, strict=True):
            await until_up(host)
            audit = await host.audit()
            assert clean(audit), audit
            assert not audit["Unattached"], audit
            try:
                await until(partial(_nothing_left, host, wanted), "clean", PATIENCE_S, poll_s=0.5)
            except AssertionError:
                print(await _leftovers(host))
                print((await host.run("nft", "list", "ruleset")).stdout)
                raise
        await until_one_ring(lab.hosts)
        assert sum((await shares(lab.hosts[0])).values()) == 1 << 16
        for host in lab.hosts:
            view = (await report(host))["IPAM"]
            assert (view["ActiveIPs"], view["PendingClaims"]) == (0, None), view
            assert "Warning: addresses" not in await status(host)
        # and all of it goes on
        guests = await attach_all(lab)
        await until_all_reach(guests)
        for host in lab.hosts:
            assert clean(await host.audit())
