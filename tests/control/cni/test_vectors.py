"""The calls of the real Weave Net 2.8.1, in their order, against ours.

What the specification changed is named in CHANGED; everything else has to be the same: exit status,
addresses with prefix length, gateway, MTU, whether there is a default route.
Origin: tests/vectors/cni_samples.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.control.cni.runtime import Node, Outcome, Pod

pytestmark = pytest.mark.netns

SAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "cni_samples.json").read_text()
)["cni_samples"]

#: Note or command → why ours differs.
CHANGED = {
    "VERSION": "more versions",
    "unsupported version": "0.4.0 is supported now",
    "other fields": "code 2 names the key; W had 100 for everything",
    "subnet given, old version": "the gateway off the link gets its route, so there is a default",
}


def numbers(text: str) -> dict[str, Any]:
    """What matters of a pod's namespace: prefix lengths, routes by kind, MTU of eth0."""
    found = re.search(r"eth0@\S+: \S+ mtu (\d+)", text)
    prefix = re.search(r"inet \S+/(\d+)", text)
    return {
        "mtu": int(found.group(1)) if found else None,
        "prefix": int(prefix.group(1)) if prefix else None,
        "default": "default via" in text,
    }


def look(pod: Pod) -> dict[str, Any]:
    text = pod.run("ip", "-o", "-4", "addr") + pod.run("ip", "route") + pod.run("ip", "-o", "link")
    return numbers(text)


def same_result(theirs: dict[str, Any], outcome: Outcome, version: str) -> None:
    ours = outcome.result
    assert ours["cniVersion"] == version  # W left it out
    if "ip4" in theirs:
        theirs_ip, ours_ip = theirs["ip4"]["ip"], ours["ip4"]["ip"]
        assert ("gateway" in theirs["ip4"]) == ("gateway" in ours["ip4"])
    else:
        (their_ip,), (our_ip,) = theirs["ips"], ours["ips"]
        theirs_ip, ours_ip = their_ip["address"], our_ip["address"]
        assert our_ip["version"] == their_ip["version"]
        assert ("gateway" in their_ip) == ("gateway" in our_ip)
    assert theirs_ip.partition("/")[2] == ours_ip.partition("/")[2]
    assert ours["dns"] == theirs["dns"]


def test_calls_in_order(node: Node) -> None:
    node.host.run("ip", "link", "set", "weave", "mtu", "65535")
    pod = node.pod("pod1")
    for sample in SAMPLES:
        config = {**sample["stdin"], "routerSocket": str(node.folder / "cni.sock")}
        config["pendingDir"] = str(node.pending)
        outcome = node.call(
            sample["command"], config, pod, ifname=sample["ifname"], plugin=sample["plugin"]
        )
        name = sample["note"] or sample["command"]
        if name in ("other fields", "unsupported version"):
            assert (outcome.status == 0) is (name == "unsupported version"), sample
            if outcome.status == 0:
                node.call("DEL", config, pod, plugin=sample["plugin"]).nothing()
            else:
                assert outcome.code == 2
            continue
        assert outcome.status == sample["exit_code"], (sample, outcome)
        after, expected = look(pod), numbers(sample["pod_netns_after"])
        if name == "subnet given, old version":
            assert after["default"]
            assert not expected.pop("default")
            after.pop("default")
        assert after == expected, sample
        if sample["command"] == "ADD":
            same_result(json.loads(sample["stdout"]), outcome, config.get("cniVersion", "0.1.0"))
        elif sample["command"] == "DEL":
            outcome.nothing()


def test_version_has_all_of_theirs(node: Node) -> None:
    (sample,) = (one for one in SAMPLES if one["command"] == "VERSION")
    theirs = json.loads(sample["stdout"])
    ours = node.call("VERSION", json.dumps(sample["stdin"]).encode()).result
    assert set(theirs["supportedVersions"]) < set(ours["supportedVersions"])


def test_every_change_is_one_of_the_samples() -> None:
    assert set(CHANGED) <= {one["note"] or one["command"] for one in SAMPLES}
