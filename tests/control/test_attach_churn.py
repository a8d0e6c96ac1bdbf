"""Control is killed while containers come and go: nothing is left over, nothing held twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from cni.netns import Netns
from tests.cni.wires import addresses_in, links_here, links_in, make_bridge, new_netns
from tests.control.test_attach_cli import BRIDGE_ADDRESS, Daemon
from tests.native.namespace import in_new_netns

KILLS = 4
CONTAINERS = 6
SEED = 11


def churn(node: Daemon, number: int, netns: Netns, rng: random.Random) -> None:
    """Attach and detach one container until nobody answers any more."""
    path = f"/proc/{threading.get_native_id()}/fd/{netns.fileno()}"
    specs = (
        "net:default",
        "net:10.32.2.0/24",
        f"10.32.3.{number + 1}/24",
        f"192.168.7.{number + 1}/24",
    )
    with node.client() as client:
        while True:
            try:
                if rng.random() < 0.6:
                    wanted = rng.sample(specs, rng.randint(1, 3))
                    body = {"netns": path, "addresses": wanted}
                    answer = client.post(f"/attach/c{number}", json=body)
                else:
                    query = {"all": "true"} if rng.random() < 0.5 else {"addr": rng.choice(specs)}
                    query["netns"] = path
                    answer = client.delete(f"/attach/c{number}", params=query)
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text


# the client's library forgets to close a socket that could not be connected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@in_new_netns
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_while_containers_come_and_go(tmp_path: Path) -> None:
    make_bridge("weave", BRIDGE_ADDRESS)
    rng = random.Random(SEED)
    namespaces = [new_netns() for _ in range(CONTAINERS)]
    try:
        for kill in range(KILLS):
            with Daemon(tmp_path) as node:
                workers = [
                    threading.Thread(
                        target=churn, args=(node, number, netns, random.Random(f"{kill}.{number}"))
                    )
                    for number, netns in enumerate(namespaces)
                ]
                for worker in workers:
                    worker.start()
                time.sleep(rng.uniform(0.2, 1.0))  # the moment of death is what is random here
                node.signal(signal.SIGKILL)
                node.wait()
                for worker in workers:
                    worker.join(60)
            with Daemon(tmp_path) as node:
                check(node, namespaces)
                node.signal(signal.SIGTERM)
                node.wait()
        with Daemon(tmp_path) as node, node.client() as client:
            for number in range(CONTAINERS):
                client.delete(f"/attach/c{number}", params={"all": "true"})
            check(node, namespaces)
            held = client.get("/ip").json()["owned"] or []
            assert [each["containerid"] for each in held] in ([], ["weave:expose"])
            assert not [name for name in links_here() if name.startswith("vethwepl")]
    finally:
        for netns in namespaces:
            netns.close()


def check(node: Daemon, namespaces: list[Netns]) -> None:
    """Records, kernel and allocator say the same, and nobody shares an address."""
    with node.client() as client:
        found = client.get("/audit").json()
        assert not any(found.values()), found
        attached = {
            each["Container"]: each["Addresses"]
            for each in client.get("/attach").json()["Attachments"]
        }
    for number, netns in enumerate(namespaces):
        there = addresses_in(netns) if "ethwe" in links_in(netns) else []
        assert sorted(attached.get(f"c{number}", [])) == sorted(there)
    every = [address for addresses in attached.values() for address in addresses]
    assert len(set(every)) == len(every)
