"""podman with the CNI back end and runc, on two hosts of a mesh."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.control.cni.runtime import REFERENCE, Outcome, run_plugin
from tests.runtimes.host import Node, Podman, build_root

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path podman finds short enough."""
    with tempfile.TemporaryDirectory(prefix="weft-") as folder:
        yield Path(folder)


@asynccontextmanager
async def hosts(folder: Path) -> AsyncIterator[tuple[list[Node], list[Podman]]]:
    """Two hosts in a mesh, each with our plugins and a podman."""
    async with Lab(2) as lab:
        first, second = lab.hosts
        await first.start_weft(peers=[second.address], attach=False)
        await second.start_weft(peers=[first.address], attach=False)
        await first.wait_established(1)
        nodes = [Node(host, folder / host.name) for host in (first, second)]
        for node in nodes:
            node.setup_cni()
            node.host.sysctl({"net/ipv4/ip_forward": 1})  # as every host of containers has it
        podmans = [Podman(node) for node in nodes]
        try:
            yield nodes, podmans
        finally:
            for podman in podmans:
                podman.close()


@pytest.mark.anyio
async def test_containers_of_two_hosts(short: Path) -> None:
    root = build_root(short)
    async with hosts(short) as (nodes, podmans):
        ids = [
            podman.run(f"c{number}", root, "--network", "weave", "-p", f"{8080 + number}:80")
            for number, podman in enumerate(podmans)
        ]
        addresses = [podman.address(f"c{number}") for number, podman in enumerate(podmans)]
        for number, node in enumerate(nodes):
            attached = await node.attached()
            assert attached == {ids[number][:12]: [f"{addresses[number]}/12"]}
        podmans[0].ping("c0", addresses[1])
        podmans[1].ping("c1", addresses[0])
        # published ports, through portmap
        assert nodes[0].fetch("127.0.0.1", 8080) == "hello"
        assert nodes[1].fetch(nodes[0].host.address, 8080) == "hello"
        # control is away: removal succeeds all the same, and is made good when it is back
        nodes[0].host.kill_control()
        podmans[0].remove("c0")
        nodes[0].setup_cni()  # which waits for the node
        assert await nodes[0].attached() == {}
        for number in (0, 1):
            podmans[number].run("again", root, "--network", "weave")
        podmans[0].ping("again", podmans[1].address("again"))
        for podman in podmans:
            podman.remove("again")
        podmans[1].remove("c1")
        for node in nodes:
            assert await node.attached() == {}
            assert not [port for port in node.host.ports() if port.startswith("vethwepl")]


@pytest.mark.anyio
async def test_several_networks_and_host_local(short: Path) -> None:
    root = build_root(short)
    async with hosts(short) as (nodes, podmans):
        node, podman = nodes[0], podmans[0]
        host_run = node.host.run_path
        ours = {
            "type": "weave-net",
            "routerSocket": str(host_run / "cni.sock"),
            "pendingDir": str(host_run / "pending-del"),
        }
        ipam = {
            "type": "host-local",
            "subnet": "10.99.0.0/24",
            "dataDir": str(short / "networks"),
            "routes": [],
        }
        node.add_network("local", {**ours, "ipam": ipam})
        podman.run("two", root, "--network", "weave", "--network", "local")
        assert podman.address("two", "local") == "10.99.0.2"
        assert (short / "networks" / "local" / "10.99.0.2").exists()
        # the reference plugin goes on in the folder, and ours after it
        config = {"cniVersion": "1.0.0", "name": "local", "type": "host-local", "ipam": ipam}
        outcome = reference(node, "ADD", config)
        assert outcome.result["ips"][0]["address"] == "10.99.0.3/24"
        podman.run("three", root, "--network", "local")
        assert podman.address("three", "local") == "10.99.0.4"
        podman.remove("two")
        podman.remove("three")
        reference(node, "DEL", config).nothing()
        assert list((short / "networks" / "local").glob("10.*")) == []
        assert await node.attached() == {}


def reference(node: Node, command: str, config: Mapping[str, object]) -> Outcome:
    """The reference host-local, as for a container ``other``."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "other",
        "CNI_NETNS": "/var/run/netns/other",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(REFERENCE),
    }
    return run_plugin(
        REFERENCE / "host-local",
        json.dumps(config).encode(),
        environment,
        node.host.namespace.net_path,
    )
