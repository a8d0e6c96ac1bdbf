"""``weft attach`` at a node that has the host's root and /proc elsewhere, as in a container."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.cni.wires import addresses_in, make_bridge, new_netns
from tests.control.test_attach_cli import ALLOCATE, Daemon, holder
from tests.native.namespace import in_new_netns


@in_new_netns
@pytest.mark.timeout(120)
def test_a_node_that_sees_the_host_elsewhere(tmp_path: Path) -> None:
    root, proc = tmp_path / "host", tmp_path / "hostproc"
    (root / "run" / "netns").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("/run")
    proc.mkdir()
    (proc / "self").symlink_to("/proc/self")
    make_bridge("weave")
    where = (*ALLOCATE, "--host-root", str(root), "--proc-path", str(proc))
    with new_netns() as one, new_netns() as other, Daemon(tmp_path, *where) as node:
        process, second = (each.run(partial(holder, each.fileno())) for each in (one, other))
        try:
            # the host knows the processes by other numbers than we do
            (proc / "4711").symlink_to(f"/proc/{process.pid}")
            (proc / "4712").symlink_to(f"/proc/{second.pid}")
            (root / "run" / "netns" / "blue").symlink_to("/proc/4712/ns/net")
            assert node.says("attach", "--pid", "4711", "c1") == "10.32.1.1\n"
            path = "/var/run/netns/blue"
            assert node.says("attach", "--netns", path, "c2") == "10.32.1.2\n"
            assert addresses_in(one, "ethwe") == ["10.32.1.1/24"]
            assert addresses_in(other, "ethwe") == ["10.32.1.2/24"]
            more = ("net:10.32.2.0/24", "192.168.7.1/24")
            assert node.says("attach", "--pid", "4711", *more, "c1").endswith("192.168.7.1\n")
            assert node.says("detach", "--pid", "4711", more[1], "c1") == "192.168.7.1\n"
            assert node.says("detach", more[0], "c1") == "10.32.2.1\n"
            assert "no such network namespace" in node.refuses("attach", "--pid", "1", "c3")
            assert [each["Netns"] for each in json.loads(node.says("ps", "--json"))[1:]] == [
                "/proc/4711/ns/net",
                path,
            ]
        finally:
            for child in (process, second):
                child.kill()
                child.wait()
