"""A node takes the place of a Weave Net router: what that left is refused, then taken over.

The other router is played by its links: they are all that it leaves. Source of truth: node
specification 2.1; ipam specification 9.3, 20.12.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.host import BRIDGE, Host
from lab.lab import Lab
from lab.process import CommandError
from tests.control.bolt_file import CONTAINER, VALUES, bolt_file
from tests.netns.support import has_interface, netns, until

pytestmark = [*netns(120), pytest.mark.patient]

RANGE = "10.40.0.0/16"
USED, EXPOSED = "10.40.0.2", "10.40.0.1"
#: As it calls the links of containers: by the id.
LINK = "vethwepl0123abc"
RULES = """
iptables -t nat -N WEAVE
iptables -t nat -A WEAVE -s 10.40.0.0/16 ! -d 10.40.0.0/16 -j MASQUERADE
iptables -t nat -A POSTROUTING -j WEAVE
iptables -N WEAVE-EXPOSE
iptables -A FORWARD -o weave -j WEAVE-EXPOSE
iptables -A FORWARD -i weave -o weave -j ACCEPT
iptables -A FORWARD -i eth0 -j ACCEPT
"""


async def weave_net_was_here(host: Host) -> None:
    """Bridge with an address, a container on it, the pair to a packet socket, rules, and a set."""
    (container,) = host.containers
    host.ip(f"link set {container.port} name {LINK}")
    container.port = LINK
    host.ip(
        f"link add {BRIDGE} address {host.peer_name} type bridge",
        f"link set {BRIDGE} mtu 65535 up",
        f"addr add {EXPOSED}/16 dev {BRIDGE}",
        "link add vethwe-bridge type veth peer name vethwe-pcap",
        f"link set vethwe-bridge master {BRIDGE} up",
        "link set vethwe-pcap up",
        f"link set {container.port} master {BRIDGE} up",
    )
    container.ip(f"addr add {USED}/16 dev {container.interface}")
    await host.run("sh", "-ec", RULES)


async def start(host: Host, *peers: str, adopt: bool = False) -> None:
    options = ["--ipalloc-range", RANGE, *(["--adopt"] if adopt else [])]
    await host.start_weft(*options, peers=peers, attach=False)


async def api(host: Host, method: str, path: str) -> str:
    command = ("curl", "-sS", "-m", "20", "-X", method, "--unix-socket", host.http_socket)
    return (await host.run(*command, f"http://weft{path}", timeout_s=25.0)).stdout


async def ipam(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = (await host.report())["IPAM"]
    return found


async def test_a_weave_net_node_is_replaced_in_place() -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        await second.start_weft("--ipalloc-range", RANGE, peers=[])
        # that the second owns what the first uses is the harder case: it has to be asked for
        assert await api(second, "POST", "/ip/other/10.40.128.0/17") == "10.40.128.1/17"
        await weave_net_was_here(first)
        container = first.containers[0]

        doctor = await first.weft_command("doctor", "--json", check=False)
        (told,) = (each for each in json.loads(doctor) if each["Name"] == "predecessor")
        assert told["State"] == "warn"
        assert "weft launch --adopt" in told["Remedy"]
        with pytest.raises(CommandError, match=r"vethwe-bridge is here and is no TAP.* --adopt"):
            await start(first, second.address)
        assert has_interface(first, "vethwe-pcap")

        await start(first, second.address, adopt=True)
        assert not has_interface(first, "vethwe-pcap")
        left = (await first.run("iptables-save")).stdout
        assert "WEAVE" not in left
        assert "-A FORWARD -i eth0 -j ACCEPT" in left
        await first.wait_established(1)

        async def settled() -> bool:
            return (await ipam(first))["PendingClaims"] is None

        await until(settled, "its addresses are its own", 30.0)
        owned = {
            address
            for each in json.loads(await api(first, "GET", "/ip"))["owned"]
            for address in each["addrs"]
        }
        assert {f"{USED}/16", f"{EXPOSED}/16"} <= owned
        for host in lab.hosts:
            given = {await api(host, "POST", f"/ip/{host.name}-{n}") for n in range(20)}
            assert len(given) == 20
            assert not given & owned
        other = second.containers[0]
        assert (await container.ping(other)).ok
        seeds = {entry["Peer"] for entry in (await ipam(first))["Entries"]}
        assert seeds == {first.peer_name, second.peer_name}
        # again, as after a reboot of the router: nothing is left to take over
        await first.stop_weft()
        await start(first, second.address, adopt=True)
        await first.wait_established(1)
        assert not [line for line in first.alarms(9) if "taken over" in line]


async def test_nothing_is_given_out_before_a_peer_was_reached() -> None:
    async with Lab(2) as lab:
        first, second = lab.hosts
        await weave_net_was_here(first)
        await start(first, second.address, adopt=True)
        command = ("curl", "-sS", "-m", "1", "-X", "POST", "--unix-socket", first.http_socket)
        waits = await first.run(*command, "http://weft/ip/early", check=False)
        assert waits.returncode == 28
        assert (await ipam(first))["Entries"] is None
        await second.start_weft("--ipalloc-range", RANGE, peers=[])
        await first.wait_established(1, 40.0)
        assert await api(first, "POST", "/ip/early") not in (f"{USED}/16", f"{EXPOSED}/16", "")


async def test_the_state_file_of_weave_net_is_gone_on_with() -> None:
    """Its ring, and whom it gave which address: no peer has to be asked, nobody is renamed."""
    async with Lab(1) as lab:
        (first,) = lab.hosts
        await weave_net_was_here(first)
        # as with a command line that is kept: in our own file's place
        path = f"{first.state_prefix}data.db"
        store = f"mkdir -p {Path(path).parent} && cat > {path}"
        await first.run("sh", "-c", store, stdin=bolt_file(VALUES))
        await start(first, adopt=True)
        assert [
            (entry["Token"], entry["Peer"][:5], entry["Version"])
            for entry in (await ipam(first))["Entries"]
        ] == [
            ("10.40.0.0", "ce:01", 5),
            ("10.40.192.0", "ce:02", 3),
            ("10.40.200.9", "ce:01", 1),
            ("10.40.200.10", "ce:02", 0),
        ]
        assert await api(first, "GET", f"/ip/{CONTAINER}") == f"{USED}/16"
        assert await api(first, "GET", "/ip/foo/10.40.200.0/24") == "10.40.200.9/24"
        assert await api(first, "POST", "/ip/weave:expose") == f"{EXPOSED}/16"
        assert await api(first, "POST", "/ip/early") == "10.40.0.4/16"
        (shown,) = (
            line.split()
            for line in (await first.ask_weft("ps")).splitlines()
            if line.startswith(CONTAINER[:12])
        )
        assert f"{USED}/16" in shown
        await first.stop_weft()
        await start(first)
        assert await api(first, "GET", "/ip/early") == "10.40.0.4/16"
