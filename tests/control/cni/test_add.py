"""ADD of weave-net, row for row: cni specification 2 to 4."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cni.versions import SUPPORTED
from tests.control.cni.runtime import Node, Pod
from tests.control.cni.shapes import check_result
from tests.control.processes import until

pytestmark = pytest.mark.netns


def hairpin_of(node: Node, pod: Pod, result: dict[str, Any]) -> bool:
    host_end = result["interfaces"][1]["name"]
    (shown,) = json.loads(node.host.run("ip", "-j", "-d", "link", "show", host_end))
    return bool(shown["linkinfo"]["info_slave_data"]["hairpin"])


def bridge_address(node: Node, bridge: str = "weave") -> str:
    (shown,) = json.loads(node.host.run("ip", "-j", "-4", "addr", "show", "dev", bridge))
    return str(shown["addr_info"][0]["local"])


# --- the result -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_version_has_its_shape(node: Node, pod: Pod, version: str) -> None:
    config = node.config(cniVersion=version)
    result = node.call("ADD", config, pod).result
    check_result(result, version)
    given = result["ip4"]["ip"] if "ip4" in result else result["ips"][0]["address"]
    assert pod.addresses() == [given]
    node.call("DEL", config, pod).nothing()


def test_without_version_it_is_the_oldest(node: Node, pod: Pod) -> None:
    check_result(node.call("ADD", node.config(cniVersion=None), pod).result, "0.1.0")
    node.call("DEL", node.config(cniVersion=None), pod).nothing()


def test_interfaces_are_bridge_host_end_and_container_end(node: Node, pod: Pod) -> None:
    result = node.call("ADD", node.config(cniVersion="1.1.0"), pod).result
    bridge, host_end, inner = result["interfaces"]
    (shown,) = json.loads(node.host.run("ip", "-j", "link", "show", "weave"))
    assert bridge == {"name": "weave", "mac": shown["address"]}
    (shown,) = json.loads(node.host.run("ip", "-j", "link", "show", host_end["name"]))
    assert host_end["mac"] == shown["address"]
    assert shown["master"] == "weave"
    (shown,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))
    assert inner == {
        "name": "eth0",
        "mac": shown["address"],
        "mtu": shown["mtu"],
        "sandbox": pod.netns,
    }
    assert [ip["interface"] for ip in result["ips"]] == [2]
    node.call("DEL", None, pod).nothing()


def test_dns_is_passed_on(node: Node, pod: Pod) -> None:
    dns = {"nameservers": ["10.32.0.10"], "search": ["weave.local"], "options": ["ndots:2"]}
    assert node.call("ADD", node.config(dns=dns), pod).result["dns"] == dns
    node.call("DEL", None, pod).nothing()


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "found"), [(True, True), (False, False), (None, True)])
def test_hairpin(node: Node, pod: Pod, given: bool | None, found: bool) -> None:
    result = node.call("ADD", node.config(hairpinMode=given), pod).result
    assert hairpin_of(node, pod, result) is found
    node.call("DEL", None, pod).nothing()


def test_mtu(node: Node, pod: Pod) -> None:
    node.call("ADD", node.config(mtu=1300), pod).result  # noqa: B018 - asserts
    (shown,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))
    assert shown["mtu"] == 1300
    node.call("DEL", None, pod).nothing()


def test_mtu_is_the_bridges_by_default(node: Node, pod: Pod) -> None:
    node.call("ADD", node.config(mtu=0), pod).result  # noqa: B018
    (shown,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))
    assert shown["mtu"] == 1376
    node.call("DEL", None, pod).nothing()


def test_mtu_above_the_bridges_is_refused(node: Node, pod: Pod) -> None:
    assert node.call("ADD", node.config(mtu=1500), pod).code == 7
    assert pod.links() == {"lo"}


def test_gateway_functionality_is_refused_by_key_and_value(node: Node, pod: Pod) -> None:
    error = node.call("ADD", node.config(isGateway=True), pod).error
    assert error["code"] == 2
    assert "isGateway: true" in error["msg"]


def test_masquerading_is_refused_by_key_and_value(node: Node, pod: Pod) -> None:
    error = node.call("ADD", node.config(ipMasq=True), pod).error
    assert error["code"] == 2
    assert "ipMasq: true" in error["msg"]


def test_bandwidth_is_another_plugins(node: Node, pod: Pod) -> None:
    config = node.config(runtimeConfig={"bandwidth": {"ingressRate": 1000}})
    assert node.call("ADD", config, pod).code == 2


def test_mac_of_the_runtime(node: Node, pod: Pod) -> None:
    config = node.config(runtimeConfig={"mac": "0A:58:0a:20:00:09"})
    result = node.call("ADD", config, pod).result
    assert result["interfaces"][2]["mac"] == "0a:58:0a:20:00:09"
    node.call("DEL", None, pod).nothing()


def test_multicast_route_only_when_asked_for(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    assert "224.0.0.0/4" not in pod.routes()
    node.call("DEL", None, pod).nothing()
    node.call("ADD", node.config(multicastRoute=True), pod).result  # noqa: B018
    assert "224.0.0.0/4" in pod.routes()
    node.call("DEL", None, pod).nothing()


def test_unknown_keys_are_ignored(node: Node, pod: Pod) -> None:
    config = node.config(isGW=True, weaveMTU=1, ipam={"ips": ["10.32.0.222/16"]})
    node.call("ADD", config, pod).result  # noqa: B018
    assert pod.addresses() != ["10.32.0.222/16"]
    node.call("DEL", config, pod).nothing()


@pytest.mark.parametrize("ask", ["runtime", "args", "variable"])
def test_static_address(node: Node, pod: Pod, ask: str) -> None:
    address = "10.32.200.7"
    variables = {"CNI_ARGS": f"IgnoreUnknown=1;IP={address}"} if ask == "variable" else {}
    keys: dict[str, Any] = {}
    if ask == "runtime":
        keys = {"runtimeConfig": {"ips": [f"{address}/16"]}}
    elif ask == "args":
        keys = {"args": {"cni": {"ips": [address]}}}
    result = node.call("ADD", node.config(**keys), pod, **variables).result
    assert result["ips"][0]["address"] == f"{address}/16"
    assert node.book()[pod.container] == [f"{address}/16"]
    node.call("DEL", None, pod).nothing()


def test_static_address_that_another_has(node: Node, pod: Pod) -> None:
    other = node.pod("static-other")
    config = node.config(runtimeConfig={"ips": ["10.32.200.8/16"]})
    node.call("ADD", config, other).result  # noqa: B018
    assert node.call("ADD", config, pod).code == 104
    assert pod.links() == {"lo"}
    node.call("DEL", None, other).nothing()


def test_pod_is_recorded(node: Node, pod: Pod) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u1"
    result = node.call("ADD", None, pod, CNI_ARGS=args).result
    (record,) = node.attachments()
    assert record["label"] == "default/web-0"
    memo = json.loads(record["memo"])
    assert memo["pod"]["K8S_POD_NAME"] == "web-0"
    host_end = result["interfaces"][1]["name"]
    assert "default/web-0" in node.host.run("ip", "link", "show", host_end)
    node.call("DEL", None, pod).nothing()


# --- IPAM keys, gateway and routes ----------------------------------------------------------------


@pytest.mark.parametrize("ipam", [None, {}, {"type": ""}, {"type": "weave-ipam"}])
def test_weave_ipam_said_or_not(node: Node, pod: Pod, ipam: dict[str, Any] | None) -> None:
    node.call("ADD", node.config(ipam=ipam), pod).result  # noqa: B018
    assert node.book()[pod.container] == pod.addresses()
    node.call("DEL", node.config(ipam=ipam), pod).nothing()


def test_first_container_gives_the_bridge_an_address(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    assert bridge_address(node) != pod.addresses()[0].partition("/")[0]
    assert node.book()["weave:expose"] == [f"{bridge_address(node)}/16"]
    assert pod.routes()["default"] == bridge_address(node)
    pod.run("ping", "-n", "-c1", "-W2", bridge_address(node))
    node.call("DEL", None, pod).nothing()


def test_two_containers_reach_each_other(node: Node, pod: Pod) -> None:
    other = node.pod("neighbour")
    node.call("ADD", None, pod).result  # noqa: B018
    there = node.call("ADD", None, other).result["ips"][0]["address"].partition("/")[0]
    pod.run("ping", "-n", "-c1", "-W2", there)
    node.call("DEL", None, pod).nothing()
    node.call("DEL", None, other).nothing()


def test_empty_routes_are_none(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"type": "weave-ipam", "routes": []})
    result = node.call("ADD", config, pod).result
    assert "routes" not in result
    assert pod.routes() == {"10.32.0.0/16": ""}
    node.call("DEL", config, pod).nothing()


def test_listed_routes_replace_the_default(node: Node, pod: Pod) -> None:
    routes = [{"dst": "10.96.0.0/12"}, {"dst": "192.0.2.0/24", "gw": "10.32.0.77"}]
    config = node.config(ipam={"gateway": "10.32.0.99", "routes": routes})
    result = node.call("ADD", config, pod).result
    assert result["ips"][0]["gateway"] == "10.32.0.99"
    assert pod.routes() == {
        "10.32.0.0/16": "",
        "10.96.0.0/12": "10.32.0.99",
        "192.0.2.0/24": "10.32.0.77",
    }
    node.call("DEL", config, pod).nothing()


def test_a_route_that_is_there_already_is_ignored(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"gateway": "10.32.0.99", "routes": [{"dst": "10.32.0.0/16"}]})
    node.call("ADD", config, pod).result  # noqa: B018
    assert pod.routes() == {"10.32.0.0/16": ""}
    node.call("DEL", config, pod).nothing()


def test_given_gateway_is_the_default(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"gateway": "10.32.0.99"})
    node.call("ADD", config, pod).result  # noqa: B018
    assert pod.routes()["default"] == "10.32.0.99"
    node.call("DEL", config, pod).nothing()


def test_gateway_off_link_gets_a_route_first(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"type": "weave-ipam", "subnet": "10.32.7.0/24"})
    other = node.pod("whole-range")
    node.call("ADD", None, other).result  # noqa: B018 - so that the bridge has its address
    result = node.call("ADD", config, pod).result
    gateway = bridge_address(node)
    assert result["ips"][0]["address"].endswith("/24")
    assert pod.routes() == {"10.32.7.0/24": "", gateway: "", "default": gateway}
    node.call("DEL", config, pod).nothing()
    node.call("DEL", None, other).nothing()


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.32.7.1/24"},
        {"subnet": "nonsense"},
        {"subnet": "192.168.0.0/24"},
        {"gateway": "x"},
        {"routes": [{"dst": "x"}]},
        {"routes": {}},
    ],
)
def test_bad_ipam_keys(node: Node, pod: Pod, ipam: dict[str, Any]) -> None:
    assert node.call("ADD", node.config(ipam=ipam), pod).code == 7
    assert pod.links() == {"lo"}


# --- twice, and several ---------------------------------------------------------------------------


def test_add_twice_is_the_same_answer(node: Node, pod: Pod) -> None:
    first = node.call("ADD", None, pod).result
    assert node.call("ADD", None, pod).result == first
    assert len(node.host_links()) == 1
    node.call("DEL", None, pod).nothing()


def test_an_interface_of_somebody_elses(node: Node, pod: Pod) -> None:
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    assert node.call("ADD", None, pod).code == 101
    assert pod.links() == {"lo", "eth0"}
    assert pod.container not in node.book()


def test_second_network_second_interface(node: Node, pod: Pod) -> None:
    node.bridge("second", "10.40.0.1/16")
    other = node.config(name="other", bridge="second", ipam={"subnet": "10.32.64.0/24"})
    try:
        first = node.call("ADD", None, pod).result
        second = node.call("ADD", other, pod, ifname="net1").result
        assert pod.links() == {"lo", "eth0", "net1"}
        assert first["interfaces"][1] != second["interfaces"][1]
        assert set(node.book()) >= {pod.container, f"{pod.container}:net1"}
        node.call("DEL", other, pod, ifname="net1").nothing()
        assert pod.links() == {"lo", "eth0"}
        node.call("DEL", None, pod).nothing()
    finally:
        node.host.run("ip", "link", "del", "second")


def test_second_network_of_the_same_subnet_has_another_address(node: Node, pod: Pod) -> None:
    other = node.config(name="other", ipam={"routes": []})
    first = node.call("ADD", None, pod).result["ips"][0]["address"]
    second = node.call("ADD", other, pod, ifname="net1").result["ips"][0]["address"]
    assert first != second
    node.call("DEL", None, pod).nothing()
    assert node.book()[f"{pod.container}:net1"] == [second]
    node.call("DEL", other, pod, ifname="net1").nothing()


def test_an_address_is_not_reused_until_del(node: Node, pod: Pod) -> None:
    first = node.call("ADD", None, pod).result["ips"][0]["address"]
    others = [node.pod(f"reuse{number}") for number in range(3)]
    assert first not in [node.call("ADD", None, one).result["ips"][0]["address"] for one in others]
    for one in (pod, *others):
        node.call("DEL", None, one).nothing()


def test_previous_result_is_kept_and_ours_added(node: Node, pod: Pod) -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": pod.netns}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"domain": "a.example"},
    }
    result = node.call("ADD", node.config(prevResult=before), pod).result
    assert [link["name"] for link in result["interfaces"]][0::3] == ["lo", "eth0"]
    assert [ip["interface"] for ip in result["ips"]] == [0, 3]
    assert result["dns"] == {"domain": "a.example"}
    node.call("DEL", None, pod).nothing()


# --- failures -------------------------------------------------------------------------------------


def test_netns_that_is_gone(node: Node, pod: Pod) -> None:
    assert node.call("ADD", None, pod, CNI_NETNS="/var/run/netns/nowhere").code == 3
    assert node.book().get(pod.container) is None


def test_netns_that_is_none(node: Node, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (str(tmp_path / "file"), "/dev/null", f"/proc/{os.getpid()}/ns/mnt"):
        assert node.call("ADD", None, pod, CNI_NETNS=path).code == 8


def test_the_hosts_own_netns(node: Node, pod: Pod) -> None:
    assert node.call("ADD", None, pod, CNI_NETNS=node.host.netns).code == 8
    assert node.host_links() == []


def test_bridge_is_missing(node: Node, pod: Pod) -> None:
    config = node.config(bridge="nobridge", ipam={"routes": []})
    error = node.call("ADD", config, pod).error
    assert error["code"] == 102
    assert "launch" in error["msg"] + error.get("details", "")


def test_nothing_free(node: Node, pod: Pod) -> None:
    config = node.config(ipam={"subnet": "10.32.80.0/30", "routes": []})
    fillers = [node.pod(f"filler{number}") for number in range(2)]
    for one in fillers:
        node.call("ADD", config, one).result  # noqa: B018
    assert node.call("ADD", config, pod).code == 103
    for one in fillers:
        node.call("DEL", config, one).nothing()


def test_waiting_for_an_address_ends_with_the_timeout(node: Node, pod: Pod) -> None:
    (node.folder / "wait").touch()
    try:
        assert node.call("ADD", node.config(timeout=0.3), pod).code == 11
    finally:
        (node.folder / "wait").unlink()


def test_waiting_for_an_address_stops_nobody_else(node: Node, pod: Pod) -> None:
    others = [node.pod(f"waiter{number}") for number in range(12)]
    node.call("ADD", None, pod).result  # noqa: B018
    (node.folder / "wait").touch()
    environment = {**os.environ, "CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0", "CNI_PATH": "/"}
    waiting = []
    try:
        for one in others:
            process = subprocess.Popen(
                [str(node.executable("weave-net"))],
                env=environment | {"CNI_CONTAINERID": one.container, "CNI_NETNS": one.netns},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(node.config()).encode())
            process.stdin.close()
            waiting.append(process)
        node.call("DEL", None, pod).nothing()
        assert pod.container not in node.book()
        for process in waiting:  # the runtime gives up: the requests are withdrawn
            process.kill()
            process.wait()
    finally:
        (node.folder / "wait").unlink()
    for one in others:
        node.call("DEL", None, one).nothing()


@pytest.mark.parametrize(
    ("version", "plugin"), [("0.3.2", "weave-net"), ("2.0.0", "weave-ipam"), ("1", "weave-net")]
)
def test_version_that_nobody_knows(node: Node, pod: Pod, version: str, plugin: str) -> None:
    assert node.call("ADD", node.config(cniVersion=version), pod, plugin=plugin).code == 1


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_configuration_that_is_no_json(node: Node, pod: Pod, stdin: bytes) -> None:
    # nothing of it can say where the service listens
    result = node.call("ADD", stdin, pod)
    assert result.code in (6, 11)


@pytest.mark.parametrize("stdin", [b'"name":"x"', b'"name": {}', b'"mtu": "x", "name": "a"', b'"x'])
def test_configuration_that_is_wrong(node: Node, pod: Pod, stdin: bytes) -> None:
    sock = json.dumps(str(node.folder / "cni.sock")).encode()
    given = b'{"cniVersion":"1.0.0","routerSocket":' + sock + b"," + stdin + b',"bridge": 5}'
    assert node.call("ADD", given, pod).code in (6, 7)


@pytest.mark.parametrize("name", [None, "", "-x", "a/b", "a b", "ä"])
def test_network_name(node: Node, pod: Pod, name: str | None) -> None:
    assert node.call("ADD", node.config(name=name), pod).code == 7


@pytest.mark.parametrize("missing", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_COMMAND"])
def test_missing_environment(node: Node, pod: Pod, missing: str) -> None:
    without: dict[str, Any] = {missing: None}
    error = node.call("ADD", None, pod, **without).error
    assert error["code"] == 4
    assert missing in error["msg"]


@pytest.mark.parametrize("ifname", [".", "..", "a/b", "a b", "a:b", "sixteen-letters!"])
def test_interface_name(node: Node, pod: Pod, ifname: str) -> None:
    assert node.call("ADD", None, pod, ifname=ifname).code == 4


@pytest.mark.parametrize("container", ["-a", "a/b", "a b", "ü", "x" * 201])
def test_container_id(node: Node, pod: Pod, container: str) -> None:
    assert node.call("ADD", None, pod, CNI_CONTAINERID=container).code == 4


def test_errors_have_the_version_of_the_configuration(node: Node, pod: Pod) -> None:
    error = node.call("ADD", node.config(cniVersion="0.4.0", mtu=9999), pod).error
    assert error["cniVersion"] == "0.4.0"


def test_a_killed_add_leaves_nothing_behind_del(node: Node, pod: Pod) -> None:
    environment = {**os.environ, "CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0", "CNI_PATH": "/"}
    environment |= {"CNI_CONTAINERID": pod.container, "CNI_NETNS": pod.netns}
    for delay_ms in range(0, 14, 2):
        process = subprocess.Popen(
            ["timeout", "-s", "KILL", f"{0.001 + delay_ms / 1000}", node.executable("weave-net")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        process.communicate(json.dumps(node.config()).encode())
        node.call("DEL", None, pod).nothing()
        until(lambda: not node.host_links(), "everything gone")
        node.audit()


def test_no_descriptor_stays_open(node: Node, pod: Pod) -> None:
    assert node.process is not None
    folder = Path(f"/proc/{node.process.pid}/fd")

    def cycle() -> None:
        node.call("ADD", None, pod).result  # noqa: B018
        node.call("ADD", node.config(bridge="gone", name="other"), pod, ifname="net1")
        node.call("DEL", None, pod).nothing()

    cycle()
    before = len(list(folder.iterdir()))
    for _ in range(10):
        cycle()
    until(lambda: len(list(folder.iterdir())) <= before + 2, "descriptors closed")
