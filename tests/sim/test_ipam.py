"""Lives of clusters: whatever happens, no address is held twice and none is lost.

That they would notice is shown in :mod:`tests.sim.test_ipam_rules`. More lives:
``WEFT_IPAM_LIVES=5000 pytest tests/sim/test_ipam.py``.
"""

from __future__ import annotations

import os

import pytest

from ipam.options import Mode
from tests.sim.ipam_lives import Plan, live
from tests.sim.ipam_node import Faults

pytestmark = [pytest.mark.sim, pytest.mark.timeout(0 if "WEFT_IPAM_LIVES" in os.environ else 120)]

LIVES = int(os.environ.get("WEFT_IPAM_LIVES", "12"))

KINDS = {
    "calm": {},
    "bad_network": {"faults": Faults(loss=0.2, duplicate=0.2, delay_s=2.0)},
    "partitions": {"partitions": True},
    "crashes": {"faults": Faults(crash=0.1)},
    "slow_disks": {"faults": Faults(crash=0.15, disk_full=0.15, disk_s=2.0)},
    "full_disks": {"faults": Faults(disk_full=0.2)},
    "jumps": {"jumps": True, "faults": Faults(loss=0.05)},
    "takeover": {"takeover": True},
    "wipes": {"wipes": True},
    "seeds": {"mode": Mode.SEED, "partitions": True},
    "restores": {"restores": True},
    "twice": {"twice": True},
    "steals": {"steals": True},
    "lies": {"lies": True},
    "weave": {"weave": 2, "partitions": True},
    "weave_faults": {
        "weave": 2,
        "faults": Faults(loss=0.1, duplicate=0.1, delay_s=1.0, crash=0.05),
    },
    "weave_takeover": {"weave": 1, "takeover": True},
    "weave_twice": {"weave": 1, "twice": True},
    "weave_steals": {"weave": 1, "steals": True},
    "all": {
        "faults": Faults(loss=0.1, duplicate=0.1, delay_s=1.0, crash=0.05, disk_full=0.05),
        "partitions": True,
        "jumps": True,
        "takeover": True,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_lives(kind: str) -> None:
    for seed in range(LIVES):
        try:
            live(Plan(seed, **KINDS[kind]))  # type: ignore[arg-type]
        except BaseException:
            print(f"kind {kind}, seed {seed}")
            raise
