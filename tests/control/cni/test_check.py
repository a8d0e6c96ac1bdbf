"""VERSION, CHECK, STATUS and GC, row for row: cni specification 6."""

from __future__ import annotations

from typing import Any

import pytest

from cni.versions import SUPPORTED
from tests.control.cni.runtime import Node, Pod

pytestmark = pytest.mark.netns


@pytest.fixture
def result(node: Node, pod: Pod) -> dict[str, Any]:
    """What ADD answered for the container; the test removes it."""
    return node.call("ADD", None, pod).result


def checked(node: Node, pod: Pod, result: dict[str, Any], **keys: Any) -> Any:
    return node.call("CHECK", node.config(prevResult=result, **keys), pod)


# --- VERSION --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ["weave-net", "weave-ipam", "weft-host-local"])
@pytest.mark.parametrize(("stdin", "said"), [(b'{"cniVersion":"0.3.1"}', "0.3.1"), (b"", "1.1.0")])
def test_version(node: Node, plugin: str, stdin: bytes, said: str) -> None:
    answer = node.call("VERSION", stdin, plugin=plugin, CNI_PATH=None).result
    assert answer == {"cniVersion": said, "supportedVersions": list(SUPPORTED)}


def test_version_reads_no_configuration(node: Node) -> None:
    assert node.call("VERSION", b'{"cniVersion":"1.0.0","name":"/"}').status == 0
    assert node.call("VERSION", b"\xff not JSON").result["cniVersion"] == "1.1.0"


def test_version_without_the_service(node: Node) -> None:
    node.stop()
    assert node.call("VERSION", b"{}").result["supportedVersions"] == list(SUPPORTED)
    node.start()


# --- CHECK ----------------------------------------------------------------------------------------


def test_check_right_after_add(node: Node, pod: Pod, result: dict[str, Any]) -> None:
    checked(node, pod, result).nothing()
    node.call("DEL", None, pod).nothing()


@pytest.mark.parametrize("version", ["0.4.0", "1.1.0"])
def test_check_of_other_versions(node: Node, pod: Pod, version: str) -> None:
    config = node.config(cniVersion=version)
    result = node.call("ADD", config, pod).result
    node.call("CHECK", {**config, "prevResult": result}, pod).nothing()
    node.call("DEL", config, pod).nothing()


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", None])
def test_check_needs_a_version(node: Node, pod: Pod, version: str | None) -> None:
    assert node.call("CHECK", node.config(cniVersion=version), pod).code == 1


def test_check_needs_a_previous_result(node: Node, pod: Pod, result: dict[str, Any]) -> None:
    assert node.call("CHECK", None, pod).code == 7
    node.call("DEL", None, pod).nothing()


@pytest.mark.parametrize("missing", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_check_needs_its_environment(node: Node, pod: Pod, missing: str) -> None:
    without: dict[str, Any] = {missing: None}
    assert node.call("CHECK", None, pod, **without).code == 4


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del eth0",
        "ip addr flush dev eth0",
        "ip route del default",
        "ip link set eth0 down",
    ],
)
def test_check_sees_the_container(
    node: Node, pod: Pod, result: dict[str, Any], damage: str
) -> None:
    pod.run(*damage.split())
    assert checked(node, pod, result).code == 100
    node.call("DEL", None, pod).nothing()


@pytest.mark.parametrize(
    "damage",
    ["ip link set {} nomaster", "ip link set {} down", "bridge link set dev {} hairpin off"],
)
def test_check_sees_the_hosts_end(
    node: Node, pod: Pod, result: dict[str, Any], damage: str
) -> None:
    host_end = result["interfaces"][1]["name"]
    node.host.run(*damage.format(host_end).split())
    assert checked(node, pod, result).code == 100
    node.call("DEL", None, pod).nothing()


def test_check_asks_ipam(node: Node, pod: Pod, result: dict[str, Any]) -> None:
    (node.folder / "forget").touch()
    try:
        assert "address" in checked(node, pod, result).error["msg"]
    finally:
        (node.folder / "forget").unlink()
    node.call("DEL", None, pod).nothing()


def test_check_of_what_was_never_added(node: Node, pod: Pod) -> None:
    assert checked(node, pod, {"cniVersion": "1.0.0"}).code == 100


def test_check_tolerates_more(node: Node, pod: Pod, result: dict[str, Any]) -> None:
    pod.run("ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
    pod.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
    changed = {**result, "interfaces": [*result["interfaces"][:2]]}
    changed["interfaces"].append({**result["interfaces"][2], "mac": "02:00:00:00:00:01"})
    checked(node, pod, changed).nothing()
    node.call("DEL", None, pod).nothing()


def test_check_compares_with_the_previous_result(
    node: Node, pod: Pod, result: dict[str, Any]
) -> None:
    other = {**result, "ips": [{**result["ips"][0], "address": "10.32.99.99/16"}]}
    assert checked(node, pod, other).code == 100
    node.call("DEL", None, pod).nothing()


def test_check_without_the_service(node: Node, pod: Pod, result: dict[str, Any]) -> None:
    node.stop()
    assert checked(node, pod, result).code == 11
    node.start()
    node.call("DEL", None, pod).nothing()


# --- STATUS ---------------------------------------------------------------------------------------


def test_status(node: Node) -> None:
    node.call("STATUS", node.config(cniVersion="1.1.0")).nothing()


def test_status_needs_a_version(node: Node) -> None:
    assert node.call("STATUS", node.config(cniVersion="1.0.0")).code == 1


def test_status_not_ready(node: Node) -> None:
    (node.folder / "not-ready").write_text("too few peers agree")
    try:
        error = node.call("STATUS", node.config(cniVersion="1.1.0")).error
        assert (error["code"], error["msg"]) == (50, "too few peers agree")
    finally:
        (node.folder / "not-ready").unlink()


def test_status_without_a_bridge(node: Node) -> None:
    assert node.call("STATUS", node.config(cniVersion="1.1.0", bridge="gone")).code == 51


def test_status_without_the_service(node: Node) -> None:
    config = node.config(cniVersion="1.1.0", routerSocket=str(node.folder / "nobody"))
    error = node.call("STATUS", config).error
    assert error["code"] == 50
    assert "weft launch" in error["details"]


# --- GC -------------------------------------------------------------------------------------------


def collect(
    node: Node, *valid: tuple[str, str], key: str = "cni.dev/valid-attachments", **more: Any
) -> Any:
    entries = [{"containerID": one, "ifname": ifname} for one, ifname in valid]
    return node.call("GC", node.config(cniVersion="1.1.0", **{key: entries}, **more))


def test_gc_removes_what_is_not_valid(node: Node, pod: Pod) -> None:
    stays = node.pod("gc-stays")
    for one in (pod, stays):
        node.call("ADD", None, one).result  # noqa: B018
    collect(node, (stays.container, "eth0")).nothing()
    assert pod.links() == {"lo"}
    assert stays.links() == {"lo", "eth0"}
    assert pod.container not in node.book()
    assert stays.container in node.book()
    node.call("DEL", None, stays).nothing()


def test_gc_of_nothing_valid_takes_everything_of_this_network(node: Node, pod: Pod) -> None:
    other = node.pod("gc-other")
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("ADD", node.config(name="other"), other).result  # noqa: B018
    collect(node).nothing()
    assert pod.links() == {"lo"}
    assert other.links() == {"lo", "eth0"}
    assert "weave:expose" in node.book()
    node.call("DEL", node.config(name="other"), other).nothing()


def test_gc_knows_the_other_key(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    collect(node, (pod.container, "eth0"), key="cni.dev/attachments").nothing()
    assert pod.links() == {"lo", "eth0"}
    node.call("DEL", None, pod).nothing()


def test_gc_without_its_key_does_nothing(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    assert node.call("GC", node.config(cniVersion="1.1.0")).code == 7
    assert pod.links() == {"lo", "eth0"}
    node.call("DEL", None, pod).nothing()


def test_gc_goes_on_after_errors(node: Node, pod: Pod) -> None:
    other = node.pod("gc-second")
    for one in (pod, other):
        node.call("ADD", None, one).result  # noqa: B018
    (node.folder / "refuse").touch()
    try:
        assert collect(node).code == 100
    finally:
        (node.folder / "refuse").unlink()
    assert pod.links() == other.links() == {"lo"}
    collect(node).nothing()


def test_gc_needs_a_version_and_a_path(node: Node) -> None:
    assert node.call("GC", node.config(**{"cni.dev/valid-attachments": []})).code == 1
    config = node.config(cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.call("GC", config, CNI_PATH=None).code == 4


def test_gc_of_one_interface_of_two(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"routes": []})
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("ADD", config, pod, ifname="net1").result  # noqa: B018
    collect(node, (pod.container, "eth0")).nothing()
    assert pod.links() == {"lo", "eth0"}
    node.call("DEL", None, pod).nothing()
