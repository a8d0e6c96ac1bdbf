"""host-local: by itself, inside weave-net, file for file beside the reference's (section 10)."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni.versions import SUPPORTED
from tests.control.cni.runtime import Node, Pod
from tests.control.cni.shapes import check_result

pytestmark = pytest.mark.netns

OURS, THEIRS = "weft-host-local", "host-local"
SUBNET = "10.60.0.0/24"

Config = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data folder of the test."""
    return tmp_path / "networks"


@pytest.fixture
def config(node: Node, folder: Path) -> Config:
    """A configuration of host-local; ``ipam`` keys by name, others in ``top``."""

    def make(top: dict[str, Any] | None = None, **ipam: Any) -> dict[str, Any]:
        keys = ipam or {"subnet": SUBNET}
        return node.config(
            ipam={"type": "host-local", "dataDir": str(folder), **keys}, **(top or {})
        )

    return make


def ips(shape: dict[str, Any]) -> list[str]:
    return [one["address"] for one in shape["ips"]]


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_one_subnet(node: Node, pod: Pod, config: Config, plugin: str) -> None:
    result = node.call("ADD", config(), pod, plugin=plugin).result
    assert result["ips"] == [{"address": "10.60.0.2/24", "gateway": "10.60.0.1"}]
    node.call("DEL", config(), pod, plugin=plugin).nothing()


@pytest.mark.parametrize("version", SUPPORTED)
def test_shape_of_every_version(node: Node, pod: Pod, config: Config, version: str) -> None:
    routes = [{"dst": "0.0.0.0/0"}]
    given = config({"cniVersion": version}, subnet=SUBNET, routes=routes)
    check_result(node.call("ADD", given, pod, plugin=OURS).result, version)
    node.call("DEL", given, pod, plugin=OURS).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_range_gateway_and_routes(node: Node, pod: Pod, config: Config, plugin: str) -> None:
    given = config(
        subnet=SUBNET,
        rangeStart="10.60.0.100",
        rangeEnd="10.60.0.110",
        gateway="10.60.0.100",
        routes=[{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.60.0.9"}],
    )
    result = node.call("ADD", given, pod, plugin=plugin).result
    assert ips(result) == ["10.60.0.101/24"]
    assert result["routes"] == given["ipam"]["routes"]
    node.call("DEL", given, pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_sets_give_one_address_each_the_short_form_first(
    node: Node, pod: Pod, config: Config, plugin: str
) -> None:
    given = config(
        subnet=SUBNET,
        ranges=[
            [{"subnet": "10.61.0.0/24"}, {"subnet": "10.62.0.0/24"}],
            [{"subnet": "fd00:60::/64"}],
        ],
    )
    result = node.call("ADD", given, pod, plugin=plugin).result
    assert ips(result) == ["10.60.0.2/24", "10.61.0.2/24", "fd00:60::2/64"]
    node.call("DEL", given, pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_ranges_of_the_runtime_come_first(
    node: Node, pod: Pod, config: Config, plugin: str
) -> None:
    top = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.70.0.0/24"}]]}}
    given = config(top, subnet=SUBNET)
    assert ips(node.call("ADD", given, pod, plugin=plugin).result) == [
        "10.70.0.2/24",
        "10.60.0.2/24",
    ]
    node.call("DEL", given, pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_resolver(node: Node, pod: Pod, config: Config, plugin: str, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# a comment\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        "domain example.org\nsearch a.example b.example\noptions ndots:2 edns0\n"
    )
    given = config(subnet=SUBNET, resolvConf=str(file))
    assert node.call("ADD", given, pod, plugin=plugin).result["dns"] == {
        "nameservers": ["192.0.2.1", "192.0.2.2"],
        "domain": "example.org",
        "search": ["a.example", "b.example"],
        "options": ["ndots:2", "edns0"],
    }
    node.call("DEL", given, pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
@pytest.mark.parametrize("ask", ["runtime", "args", "variable"])
def test_requested_address(node: Node, pod: Pod, config: Config, plugin: str, ask: str) -> None:
    variables = {"CNI_ARGS": "IgnoreUnknown=1;IP=10.60.0.50"} if ask == "variable" else {}
    top: dict[str, Any] = {}
    if ask == "runtime":
        top = {"runtimeConfig": {"ips": ["10.60.0.50/24"]}}
    elif ask == "args":
        top = {"args": {"cni": {"ips": ["10.60.0.50"]}}}
    result = node.call("ADD", config(top), pod, plugin=plugin, **variables).result
    assert ips(result) == ["10.60.0.50/24"]
    node.call("DEL", config(), pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
@pytest.mark.parametrize("address", ["10.60.0.1", "10.99.0.1", "10.60.0.2"])
def test_requested_address_that_cannot_be(
    node: Node, pod: Pod, config: Config, plugin: str, address: str, folder: Path
) -> None:
    other = node.pod("holder")
    node.call("ADD", config(), other, plugin=plugin).result  # noqa: B018
    node.call("ADD", config(), pod, plugin=plugin, CNI_ARGS=f"IP={address}").error  # noqa: B018
    assert {path.name for path in (folder / "weave").iterdir()} == {
        "10.60.0.2",
        "last_reserved_ip.0",
        "lock",
    }


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.60.0.0/31"},
        {"subnet": "fd00::/127"},
        {"subnet": "10.60.0.1/24"},
        {"subnet": SUBNET, "rangeStart": "10.61.0.1"},
        {"subnet": SUBNET, "rangeEnd": "10.61.0.1"},
        {"subnet": SUBNET, "rangeStart": "10.60.0.9", "rangeEnd": "10.60.0.8"},
        {"subnet": SUBNET, "gateway": "x"},
        {"ranges": [[{"subnet": SUBNET}, {"subnet": "fd00::/64"}]]},
        {"ranges": [[{"subnet": SUBNET}, {"subnet": SUBNET}]]},
        {"ranges": [[{"subnet": SUBNET}], [{"subnet": "10.60.0.0/16"}]]},
        {"ranges": [[]]},
        {"ranges": []},
        {"ranges": "x"},
        {"routes": []},
    ],
)
def test_ranges_that_cannot_be(node: Node, pod: Pod, config: Config, ipam: dict[str, Any]) -> None:
    assert node.call("ADD", config(**ipam), pod, plugin=OURS).code == 7
    node.call("ADD", config(**ipam), pod, plugin=THEIRS).error  # noqa: B018


@pytest.mark.parametrize(("version", "fine"), [("0.2.0", False), ("0.3.0", True)])
def test_two_of_a_family_need_a_version(
    node: Node, pod: Pod, config: Config, version: str, fine: bool
) -> None:
    ranges = [[{"subnet": SUBNET}], [{"subnet": "10.61.0.0/24"}]]
    given = config({"cniVersion": version}, ranges=ranges)
    assert (node.call("ADD", given, pod, plugin=OURS).status == 0) is fine
    node.call("DEL", given, pod, plugin=OURS).nothing()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_files(node: Node, pod: Pod, config: Config, plugin: str, folder: Path) -> None:
    node.call("ADD", config(), pod, plugin=plugin).result  # noqa: B018
    network = folder / "weave"
    assert network.stat().st_mode & 0o777 == 0o755
    held = network / "10.60.0.2"
    assert held.read_bytes() == f"{pod.container}\r\neth0".encode()
    # the reference of Debian 12 leaves it to the umask
    assert plugin == THEIRS or held.stat().st_mode & 0o777 == 0o600
    assert (network / "last_reserved_ip.0").read_bytes() == b"10.60.0.2"
    assert (network / "lock").exists()
    node.call("DEL", config(), pod, plugin=plugin).nothing()
    assert not held.exists()
    assert (network / "last_reserved_ip.0").read_bytes() == b"10.60.0.2"


@pytest.mark.parametrize(("first", "second"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_either_goes_on_where_the_other_was(
    node: Node, config: Config, folder: Path, first: str, second: str
) -> None:
    given = config(
        subnet="10.60.0.0/29", ranges=[[{"subnet": "10.61.0.0/29"}], [{"subnet": "fd00:60::/64"}]]
    )
    pods = [node.pod(f"turn{number}") for number in range(5)]
    found = []
    for turn, one in enumerate(pods):
        plugin = (first, second)[turn % 2]
        found.append(ips(node.call("ADD", given, one, plugin=plugin).result))
    assert [one[0] for one in found] == [f"10.60.0.{n}/29" for n in range(2, 7)]
    assert [one[2] for one in found] == [f"fd00:60::{n}/64" for n in range(2, 7)]
    # full, for both
    late = node.pod("late")
    assert node.call("ADD", given, late, plugin=OURS).code == 103
    node.call("ADD", given, late, plugin=THEIRS).error  # noqa: B018
    # each sees and takes back what the other gave
    newest = {**given, "cniVersion": "1.0.0"}
    node.call("CHECK", {**newest, "prevResult": {"cniVersion": "1.0.0"}}, pods[0], plugin=second)
    node.call("DEL", given, pods[0], plugin=second).nothing()
    node.call("DEL", given, pods[1], plugin=first).nothing()
    assert ips(node.call("ADD", given, late, plugin=second).result)[0] == "10.60.0.2/29"
    node.call("DEL", given, late, plugin=first).nothing()
    for one in pods[2:]:
        node.call("DEL", given, one, plugin=second).nothing()
    left = {path.name for path in (folder / "weave").iterdir()}
    assert left == {"lock", "last_reserved_ip.0", "last_reserved_ip.1", "last_reserved_ip.2"}


def test_both_choose_alike(node: Node, config: Config, tmp_path: Path) -> None:
    ranges = [
        [
            {"subnet": "10.60.0.0/29", "rangeStart": "10.60.0.4", "gateway": "10.60.0.5"},
            {"subnet": "10.61.0.0/29", "rangeEnd": "10.61.0.3"},
        ]
    ]
    seen: dict[str, list[Any]] = {}
    for plugin in (OURS, THEIRS):
        folder = str(tmp_path / plugin)
        given = config(ranges=ranges, dataDir=folder)
        chosen: list[Any] = []
        pods = [node.pod(f"walk{number}") for number in range(6)]
        for step in (0, 1, "-0", 2, 3, "-1", 4, 0, 5):
            if isinstance(step, str):
                node.call("DEL", given, pods[int(step[1:])], plugin=plugin).nothing()
            else:
                outcome = node.call("ADD", given, pods[step], plugin=plugin)
                chosen.append(ips(outcome.result) if outcome.status == 0 else "full")
        seen[plugin] = chosen
    assert seen[OURS] == seen[THEIRS]


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_twice_is_refused(node: Node, pod: Pod, config: Config, plugin: str) -> None:
    node.call("ADD", config(), pod, plugin=plugin).result  # noqa: B018
    error = node.call("ADD", config(), pod, plugin=plugin).error
    assert "duplicate allocation is not allowed" in error["msg"]
    # another interface is another matter
    second = node.call("ADD", config(), pod, plugin=plugin, ifname="net1").result
    assert ips(second) == ["10.60.0.3/24"]


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_old_files_with_the_id_alone(
    node: Node, pod: Pod, config: Config, plugin: str, folder: Path
) -> None:
    (folder / "weave").mkdir(parents=True)
    (folder / "weave" / "10.60.0.9").write_text(pod.container)
    given = {**config(), "prevResult": {"cniVersion": "1.0.0", "ips": []}}
    node.call("CHECK", given, pod, plugin=plugin).nothing()
    node.call("DEL", config(), pod, plugin=plugin).nothing()
    assert not (folder / "weave" / "10.60.0.9").exists()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_del_of_nothing(node: Node, pod: Pod, config: Config, plugin: str) -> None:
    node.call("DEL", config(), pod, plugin=plugin).nothing()


@pytest.mark.parametrize("plugin", [OURS, THEIRS])
def test_check(node: Node, pod: Pod, config: Config, plugin: str) -> None:
    previous = {"cniVersion": "1.0.0", "ips": []}
    given = {**config(), "prevResult": previous}
    node.call("CHECK", given, pod, plugin=plugin).error  # noqa: B018
    node.call("ADD", config(), pod, plugin=plugin).result  # noqa: B018
    node.call("CHECK", given, pod, plugin=plugin).nothing()


def test_many_at_once_beside_one_who_holds_the_lock(
    node: Node, config: Config, folder: Path
) -> None:
    first = node.pod("lock-first")
    node.call("ADD", config(), first, plugin=OURS).result  # noqa: B018
    pods = [node.pod(f"lock{number}") for number in range(70)]
    with (folder / "weave" / "lock").open() as lock, ThreadPoolExecutor(8) as threads:
        fcntl.flock(lock, fcntl.LOCK_EX)
        calls = [threads.submit(node.call, "ADD", config(), one, plugin=OURS) for one in pods]
        # held by another, host-local waits, and holds up nothing else
        node.call("ADD", None, first).result  # noqa: B018
        node.call("DEL", None, first).nothing()
        assert not any(one.done() for one in calls)
        fcntl.flock(lock, fcntl.LOCK_UN)
        given = {ips(one.result().result)[0] for one in calls}
    assert len(given) == len(pods)


def test_a_failing_set_gives_back_what_others_gave(
    node: Node, pod: Pod, config: Config, folder: Path
) -> None:
    small = {"subnet": "10.61.0.0/30", "rangeEnd": "10.61.0.1"}
    given = config(ranges=[[{"subnet": SUBNET}], [small]])
    assert node.call("ADD", given, pod, plugin=OURS).code == 103
    assert not (folder / "weave" / "10.60.0.2").exists()


def test_empty_file_of_a_crash(node: Node, config: Config, folder: Path) -> None:
    network = folder / "weave"
    network.mkdir(parents=True)
    for name, age_s in (("10.60.0.2", 120), ("10.60.0.3", 5)):
        (network / name).touch()
        then = time.time() - age_s
        os.utime(network / name, (then, then))
    first, second = node.pod("empty1"), node.pod("empty2")
    assert ips(node.call("ADD", config(), first, plugin=OURS).result) == ["10.60.0.2/24"]
    assert ips(node.call("ADD", config(), second, plugin=OURS).result) == ["10.60.0.4/24"]


def test_gc_drops_what_is_not_valid(node: Node, config: Config, folder: Path) -> None:
    pods = [node.pod(f"gc{number}") for number in range(3)]
    for one in pods:
        node.call("ADD", config(), one, plugin=OURS).result  # noqa: B018
    valid = [{"containerID": pods[1].container, "ifname": "eth0"}]
    given = config({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid})
    node.call("GC", given, plugin=OURS).nothing()
    assert [path.name for path in (folder / "weave").glob("10.*")] == ["10.60.0.3"]
    assert node.call("GC", config({"cniVersion": "1.1.0"}), plugin=OURS).code == 7


def test_status_of_a_full_range(node: Node, pod: Pod, config: Config) -> None:
    given = config({"cniVersion": "1.1.0"}, subnet="10.60.0.0/30")
    node.call("STATUS", given, plugin=OURS).nothing()
    node.call("ADD", given, pod, plugin=OURS).result  # noqa: B018
    assert node.call("STATUS", given, plugin=OURS).code == 50


def test_folder_that_cannot_be(node: Node, pod: Pod, config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = config(subnet=SUBNET, dataDir=str(tmp_path / "file"))
    assert node.call("ADD", given, pod, plugin=OURS).code == 5


# --- inside weave-net -----------------------------------------------------------------------------


def test_inside_weave_net(node: Node, pod: Pod, config: Config, folder: Path) -> None:
    other = node.pod("first-of-bridge")
    node.call("ADD", None, other).result  # noqa: B018 - so that the bridge has an address
    given = config(subnet="10.32.240.0/24", routes=[{"dst": "0.0.0.0/0"}])
    result = node.call("ADD", given, pod).result
    assert ips(result) == ["10.32.240.2/24"]
    assert pod.routes()["default"] == "10.32.240.1"
    assert (folder / "weave" / "10.32.240.2").exists()
    node.call("CHECK", {**given, "prevResult": result}, pod).nothing()
    valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
    node.call("GC", {**given, "cniVersion": "1.1.0", **valid}).nothing()
    assert not (folder / "weave" / "10.32.240.2").exists()
    assert pod.links() == {"lo"}
    node.call("DEL", None, other).nothing()


def test_first_container_gives_the_bridge_its_gateway(
    node: Node, pod: Pod, config: Config, folder: Path
) -> None:
    node.bridge("local")
    given = config({"name": "local", "bridge": "local"}, subnet="10.80.0.0/24")
    try:
        result = node.call("ADD", given, pod).result
        held = json.loads(node.host.run("ip", "-j", "-4", "addr", "show", "dev", "local"))
        assert held[0]["addr_info"][0]["local"] == "10.80.0.3"
        assert (folder / "local" / "10.80.0.3").read_text().startswith("weave-expose")
        assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.80.0.3"}]
        valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
        node.call("GC", {**given, "cniVersion": "1.1.0", **valid}).nothing()
        assert (folder / "local" / "10.80.0.3").exists()
    finally:
        node.host.run("ip", "link", "del", "local")
        for entry in (node.folder / "state" / "cni").glob("weave-expose*"):
            entry.unlink()
