"""Other IPAM plugins, and weave-ipam behind other plugins: cni specification 9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.cni.runtime import REFERENCE, Node, Pod
from tests.control.cni.shapes import check_result

pytestmark = pytest.mark.netns

#: Writes down how it was called, and answers with what lies in its folder.
RECORDER = """#!/bin/sh
folder=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME ${CNI_ARGS-none} ${SECRET-none}" >> "$folder/calls"
cat > "$folder/stdin"
echo "a word of the plugin" >&2
cat "$folder/answer.$CNI_COMMAND" 2>/dev/null
exit "$(cat "$folder/status.$CNI_COMMAND" 2>/dev/null || echo 0)"
"""
ADDRESS = {"cniVersion": "1.0.0", "ips": [{"address": "10.50.0.5/24", "gateway": "10.50.0.1"}]}


class Recorder:
    """An IPAM plugin called ``recorder`` whose answers the test chooses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "recorder").write_text(RECORDER)
        (folder / "recorder").chmod(0o755)

    def answer(self, command: str, shape: Any, status: int = 0) -> None:
        text = shape if isinstance(shape, str) else json.dumps(shape)
        (self.folder / f"answer.{command}").write_text(text)
        (self.folder / f"status.{command}").write_text(str(status))

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    made = Recorder(tmp_path)
    made.answer("ADD", ADDRESS)
    return made


@pytest.fixture
def config(node: Node) -> Iterator[dict[str, Any]]:
    yield node.config(ipam={"type": "recorder", "routes": [], "own": [1]})
    for path in (node.folder / "state" / "cni").glob("weave-expose*"):
        path.unlink()


def test_add_and_del(node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]) -> None:
    path = f"/nowhere:{recorder.folder}:{REFERENCE}"
    outcome = node.call("ADD", config, pod, path=path, CNI_ARGS="A=b", SECRET="no")
    assert outcome.result["ips"][0]["address"] == "10.50.0.5/24"
    assert "a word of the plugin" in outcome.stderr
    assert pod.addresses() == ["10.50.0.5/24"]
    assert json.loads((recorder.folder / "stdin").read_bytes()) == config
    node.call("CHECK", {**config, "prevResult": outcome.result}, pod, path=path).nothing()
    node.call("DEL", config, pod, path=path).nothing()
    assert recorder.calls() == [
        f"ADD {pod.container} eth0 A=b none",
        f"CHECK {pod.container} eth0 none none",
        f"DEL {pod.container} eth0 none none",
    ]


@pytest.mark.parametrize(
    "answer", ["", {"cniVersion": "1.0.0"}, {"cniVersion": "1.0.0", "ips": []}]
)
def test_no_address(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any], answer: Any
) -> None:
    recorder.answer("ADD", answer)
    error = node.call("ADD", config, pod, path=str(recorder.folder)).error
    assert error["msg"] == "IPAM plugin failed to allocate IP address"
    assert [line.split()[0] for line in recorder.calls()] == ["ADD", "DEL"]


def test_its_error_is_passed_up(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    recorder.answer("ADD", {"cniVersion": "1.0.0", "code": 123, "msg": "no", "details": "why"}, 1)
    error = node.call("ADD", config, pod, path=str(recorder.folder)).error
    assert (error["code"], error["msg"], error["details"]) == (123, "no", "why")
    assert [line.split()[0] for line in recorder.calls()] == ["ADD", "DEL"]
    assert pod.links() == {"lo"}


def test_it_fails_without_a_word_on_stdout(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    recorder.answer("ADD", "", 3)
    error = node.call("ADD", config, pod, path=str(recorder.folder)).error
    assert "status 3" in error["msg"]
    assert error["details"] == "a word of the plugin"


def test_its_errors_of_del_are_passed_up(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    path = str(recorder.folder)
    node.call("ADD", config, pod, path=path).result  # noqa: B018
    recorder.answer("DEL", {"cniVersion": "1.0.0", "code": 99, "msg": "not now"}, 1)
    assert node.call("DEL", config, pod, path=path).code == 99
    recorder.answer("DEL", "")
    node.call("DEL", config, pod, path=path).nothing()


def test_failing_attachment_calls_its_del(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    error = node.call("ADD", {**config, "bridge": "gone"}, pod, path=str(recorder.folder)).error
    assert error["code"] == 102
    assert [line.split()[0] for line in recorder.calls()] == ["ADD", "DEL"]


@pytest.mark.parametrize("kind", ["unknown-plugin", "a/b", ".."])
def test_plugin_that_is_not_there(node: Node, pod: Pod, kind: str) -> None:
    assert node.call("ADD", node.config(ipam={"type": kind}), pod).code in (7, 100)


def test_no_path(node: Node, pod: Pod, config: dict[str, Any]) -> None:
    assert node.call("ADD", config, pod, CNI_PATH=None).code == 4


def test_result_with_interfaces_is_no_ipams(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    recorder.answer("ADD", {**ADDRESS, "interfaces": [{"name": "eth0"}]})
    assert node.call("ADD", config, pod, path=str(recorder.folder)).code == 100


def test_result_of_an_old_plugin(
    node: Node, pod: Pod, recorder: Recorder, config: dict[str, Any]
) -> None:
    old = {**config, "cniVersion": "0.2.0"}
    recorder.answer("ADD", {"ip4": {"ip": "10.50.0.9/24", "routes": [{"dst": "10.60.0.0/16"}]}})
    result = node.call("ADD", old, pod, path=str(recorder.folder)).result
    check_result(result, "0.2.0")
    assert pod.addresses() == ["10.50.0.9/24"]
    assert "10.60.0.0/16" in pod.routes()
    node.call("DEL", old, pod, path=str(recorder.folder)).nothing()


def test_gateway_of_the_bridge_is_asked_for_once(node: Node, pod: Pod, recorder: Recorder) -> None:
    node.bridge("fresh")
    config = node.config(name="fresh", bridge="fresh", ipam={"type": "recorder"})
    path = str(recorder.folder)
    try:
        result = node.call("ADD", config, pod, path=path, CNI_ARGS="IP=10.50.0.5").result
        assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.50.0.5"}]
        assert recorder.calls() == [
            f"ADD {pod.container} eth0 IP=10.50.0.5 none",
            "ADD weave-expose eth0 none none",
        ]
        valid = {"cni.dev/valid-attachments": [{"containerID": pod.container, "ifname": "eth0"}]}
        node.call("GC", {**config, "cniVersion": "1.1.0", **valid}, path=path).nothing()
        told = json.loads((recorder.folder / "stdin").read_bytes())["cni.dev/valid-attachments"]
        assert {"containerID": "weave-expose", "ifname": "eth0"} in told
        node.call("DEL", config, pod, path=path).nothing()
    finally:
        node.host.run("ip", "link", "del", "fresh")
        for entry in (node.folder / "state" / "cni").glob("weave-expose*"):
            entry.unlink()


def test_status_is_delegated(node: Node, recorder: Recorder, config: dict[str, Any]) -> None:
    newest = {**config, "cniVersion": "1.1.0"}
    node.call("STATUS", newest, path=str(recorder.folder)).nothing()
    recorder.answer("STATUS", {"cniVersion": "1.1.0", "code": 50, "msg": "full"}, 1)
    assert node.call("STATUS", newest, path=str(recorder.folder)).code == 50


# --- weave-ipam behind the reference's bridge plugin ---------------------------------------------


@pytest.mark.parametrize("version", ["0.3.0", "1.0.0"])
def test_weave_ipam_behind_bridge(node: Node, pod: Pod, version: str) -> None:
    config = node.config(
        cniVersion=version, type="bridge", bridge="theirs", ipam={"type": "weave-ipam"}
    )
    try:
        result = node.call("ADD", config, pod).result
        check_result(result, version)
        assert [result["ips"][0]["address"]] == pod.addresses() == node.book()[pod.container]
        if version != "0.3.0":
            node.call("CHECK", {**config, "prevResult": result}, pod).nothing()
        node.call("DEL", config, pod).nothing()
        assert pod.container not in node.book()
    finally:
        node.host.run("ip", "link", "del", "theirs", check=False)


@pytest.mark.parametrize("bridge_first", [True, False])
def test_one_container_of_both_plugins(node: Node, pod: Pod, bridge_first: bool) -> None:
    theirs = node.config(name="other", type="bridge", bridge="theirs", ipam={"type": "weave-ipam"})
    ours = node.config(ipam={"routes": []})
    calls = [(theirs, "net1"), (ours, "eth0")]
    calls = calls if bridge_first else calls[::-1]
    try:
        given = [
            node.call("ADD", config, pod, ifname=ifname).result["ips"][0]["address"]
            for config, ifname in calls
        ]
        assert len(set(given)) == 2
        assert sorted(pod_addresses(node, pod)) == sorted(given)
        for config, ifname in calls:
            node.call("DEL", config, pod, ifname=ifname).nothing()
    finally:
        node.host.run("ip", "link", "del", "theirs", check=False)


def pod_addresses(node: Node, pod: Pod) -> list[str]:
    """All addresses that are held for a container."""
    return [
        address
        for ident, addresses in node.book().items()
        for address in addresses
        if ident.partition(":")[0] == pod.container
    ]


def test_weave_ipam_alone(node: Node, pod: Pod) -> None:
    ipam = {"type": "weave-ipam", "gateway": "10.32.0.77", "routes": [{"dst": "0.0.0.0/0"}]}
    config = node.config(type="weave-net", ipam=ipam)
    result = node.call("ADD", config, pod, plugin="weave-ipam").result
    check_result(result, "1.0.0")
    assert "interfaces" not in result
    assert result["ips"][0]["gateway"] == "10.32.0.77"
    assert result["routes"] == [{"dst": "0.0.0.0/0"}]
    again = node.call("ADD", config, pod, plugin="weave-ipam").result
    assert again == result
    node.call("DEL", config, pod, plugin="weave-ipam").nothing()
    node.call("DEL", config, pod, plugin="weave-ipam").nothing()


@pytest.mark.parametrize("chained", ["portmap", "bandwidth", "tuning", "firewall"])
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_reference_plugins_take_our_result(
    node: Node, pod: Pod, chained: str, version: str
) -> None:
    result = node.call("ADD", node.config(cniVersion=version), pod).result
    keys: dict[str, Any] = {"type": chained, "prevResult": result, "cniVersion": version}
    if chained == "portmap":
        mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        keys |= {"snat": True, "runtimeConfig": {"portMappings": mappings}}
    elif chained == "bandwidth":
        keys |= {"ingressRate": 1_000_000, "ingressBurst": 1_000_000}
    elif chained == "tuning":
        keys |= {"mtu": 1300}
    second = node.config(**keys)
    outcome = node.call("ADD", second, pod)
    assert outcome.result["ips"] == result["ips"]
    node.call("DEL", second, pod).nothing()
    node.call("DEL", node.config(cniVersion=version), pod).nothing()
    for link in json.loads(node.host.run("ip", "-j", "link")):
        if link["ifname"].startswith("bwp"):
            node.host.run("ip", "link", "del", link["ifname"])
