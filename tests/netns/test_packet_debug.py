"""``weft launch --pkt-debug``: the log has frames with their peer, on one event loop and on two."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest

from lab.lab import Lab
from tests.netns.support import netns, until

pytestmark = [*netns(120), pytest.mark.patient]


@pytest.mark.parametrize(("loops", "sealed"), [("one", False), ("two", True)])
async def test_each_frame_is_told_with_its_peer(loops: str, sealed: bool) -> None:
    async with Lab(2) as lab:
        password = "correct horse" if sealed else None
        await lab.start_weft("--pkt-debug", "--loops", loops, mesh=True, password=password)
        one, other = lab.containers
        here, there = lab.hosts
        assert here.weft is not None
        request = rf"src={one.mac} dst={other.mac} type=0x0800 bytes=\d+"
        answer = rf"src={other.mac} dst={one.mac} type=0x0800 bytes=\d+"
        peer = re.escape(f"peer={there.peer_name}({there.name})")
        await one.ping(other)
        said = here.weft.stderr
        for line in (
            f"DEBUG   router.packet_log frame captured dir=out {request} {peer}",
            f"DEBUG   router.packet_log frame injected dir=in {answer} {peer}",
        ):
            await until(partial(_found, line, said), line)


def _found(line: str, said: Callable[[], str]) -> bool:
    return re.search(line, said()) is not None
