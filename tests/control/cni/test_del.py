"""DEL, row for row: cni specification 5."""

from __future__ import annotations

import os
import signal

import pytest

from control.cni.pending import file_name
from control.cni.wire import Request
from tests.control.cni.runtime import Node, Pod
from tests.control.processes import until

pytestmark = pytest.mark.netns


def test_everything_goes(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("DEL", None, pod).nothing()
    assert pod.links() == {"lo"}
    node.audit()


def test_twice(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("DEL", None, pod).nothing()
    node.call("DEL", None, pod).nothing()


def test_unknown_container(node: Node, pod: Pod) -> None:
    node.call("DEL", None, pod).nothing()


@pytest.mark.parametrize("netns", [None, "", "/var/run/netns/gone"])
def test_without_netns(node: Node, pod: Pod, netns: str | None) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("DEL", None, pod, CNI_NETNS=netns).nothing()
    assert pod.links() == {"lo"}


def test_netns_is_destroyed_before(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    pod.close()
    node.call("DEL", None, pod, CNI_NETNS="").nothing()


@pytest.mark.parametrize("stdin", ["no name", "no version"])
def test_unreadable_configuration_is_success(node: Node, pod: Pod, stdin: str) -> None:
    config = node.config(name=None) if stdin == "no name" else node.config(cniVersion="9.9.9")
    node.call("DEL", config, pod).nothing()


def test_configuration_of_another_ipam(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    config = node.config(ipam={"type": "host-local", "dataDir": str(node.folder / "none")})
    node.call("DEL", config, pod).nothing()


def test_del_of_one_network_leaves_the_others_interface(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    outcome = node.call("DEL", node.config(name="other"), pod)
    outcome.nothing()
    assert "network weave" in outcome.stderr
    assert pod.links() == {"lo", "eth0"}
    node.call("DEL", None, pod).nothing()


def test_without_previous_result_or_ipam(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.call("DEL", {**node.config(), "ipam": None}, pod).nothing()


def test_records_of_a_lost_disk(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.stop()
    for path in node.folder.glob("weft-*"):
        path.unlink()
    node.start()
    node.call("DEL", None, pod).nothing()


def test_ipam_that_refuses_is_asked_again_later(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    (node.folder / "refuse").touch()
    try:
        outcome = node.call("DEL", None, pod)
        outcome.nothing()
        assert "the release waits" in outcome.stderr
        assert pod.links() == {"lo"}
        assert pod.container in node.book()
        (entry,) = node.pending.iterdir()
        assert entry.name.startswith(f"{pod.container}@eth0.")
    finally:
        (node.folder / "refuse").unlink()
    # the next release wakes the one that waits
    other = node.pod("waker")
    node.call("DEL", None, pod).nothing()
    node.call("DEL", None, other).nothing()
    node.stop(signal.SIGKILL)
    node.start()
    assert list(node.pending.iterdir()) == []


def test_service_is_down(node: Node, pod: Pod) -> None:
    first = node.call("ADD", None, pod).result["ips"][0]["address"]
    node.stop()
    outcome = node.call("DEL", None, pod)
    outcome.nothing()
    assert "the release waits" in outcome.stderr
    (entry,) = node.pending.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert node.book()[pod.container] == [first]
    node.start()
    node.audit()
    assert pod.links() == {"lo"}


def test_stub_and_service_name_the_file_alike(node: Node, pod: Pod) -> None:
    node.stop()
    for plugin in ("weave-net", "weave-ipam"):
        config = node.config(name="a.b-c")
        node.call("DEL", config, pod, plugin=plugin).nothing()
        variables = {"CNI_CONTAINERID": pod.container, "CNI_IFNAME": "eth0"}
        request = Request(plugin, variables, b'{"name":"a.b-c"}')
        assert (node.pending / file_name(request)).exists()
    assert len(list(node.pending.iterdir())) == 2
    node.start()


def test_file_that_appears_while_the_service_runs(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    config = node.config(routerSocket=str(node.folder / "nobody.sock"))
    node.call("DEL", config, pod).nothing()
    until(lambda: pod.links() == {"lo"}, "released")
    until(lambda: not list(node.pending.iterdir()), "taken up")


def test_add_after_a_release_that_waits_is_a_new_one(node: Node, pod: Pod) -> None:
    node.call("ADD", None, pod).result  # noqa: B018
    node.stop()
    node.call("DEL", None, pod).nothing()
    (entry,) = node.pending.iterdir()
    kept = entry.read_bytes()
    node.start()
    node.call("ADD", None, pod).result  # noqa: B018
    assert node.book()[pod.container] == pod.addresses()
    # were the file to come back now, it would take away what is in use: so it must be gone
    assert not entry.exists()
    assert kept
    node.call("DEL", None, pod).nothing()


def test_down_and_the_disk_is_no_help(node: Node, pod: Pod) -> None:
    config = node.config(
        routerSocket=str(node.folder / "nobody.sock"), pendingDir="/proc/nowhere/pending"
    )
    error = node.call("DEL", config, pod).error
    assert error["code"] == 11
    assert "/proc/nowhere/pending" in error["details"]


def test_files_that_are_no_releases_stay(node: Node, pod: Pod) -> None:
    node.stop()
    node.pending.mkdir(parents=True, exist_ok=True)
    (node.pending / "readme").write_text("hello")
    (node.pending / "c@eth0.0").write_bytes(os.urandom(300))
    node.start()
    assert (node.pending / "readme").read_text() == "hello"
    for name in ("readme", "c@eth0.0"):
        (node.pending / name).unlink()
