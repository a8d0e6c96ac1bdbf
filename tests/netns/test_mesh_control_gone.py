"""Control killed on a node of a mesh: routers, its own and its neighbours', go on meanwhile."""

from __future__ import annotations

import anyio
import pytest

from lab.lab import Lab
from tests.netns.support import PASSWORD, Pinging, netns, until

pytestmark = [*netns(120)]

#: Both routers change to the key of the new connection, each when its control says so.
CHANGE_S = 0.5


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["plain", "encrypted"])
async def test_control_killed(password: str | None) -> None:
    async with Lab(3) as lab:
        await lab.start_weft(mesh=True, password=password)
        host, near, far = lab.hosts
        routers = [each.pids("router") for each in lab.hosts]
        here, there, _ = lab.containers
        async with Pinging(here, there) as ping:
            await anyio.sleep(0.5)
            before = host.kill_control()

            def replaced() -> bool:
                return host.pids("control") not in ([], [before])

            async def serves() -> bool:
                argv = ("status", "--http-addr", host.http_socket)
                return await host.weft_command(*argv, check=False) != ""

            await until(replaced, "another control runs", 20.0)
            await until(serves, "its API is back", 20.0)
            for each in (host, near, far):
                await each.wait_established(2)
            await anyio.sleep(1.0)
        print(f"{len(ping.missing)} of {ping.sent} lost, at most {ping.longest_gap_s:.2f} s")
        assert ping.longest_gap_s < CHANGE_S
        assert [each.pids("router") for each in lab.hosts] == routers
