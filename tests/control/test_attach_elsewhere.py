"""``weft attach`` at a node that has the host's root and /proc elsewhere, as in a container."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cni.wires import addresses_in, make_bridge, new_netns
from tests.control.processes import until
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


class Contained(Daemon):
    """The daemon with a /proc of its own processes only; the host's is mounted beside it."""

    def __init__(self, folder: Path) -> None:
        self._root, self._proc = folder / "host", folder / "hostproc"
        for path in (self._root, self._proc):
            path.mkdir()
        where = ("--host-root", str(self._root), "--proc-path", str(self._proc))
        super().__init__(folder, *ALLOCATE, *where)

    def close(self) -> None:
        self.process.kill()  # unshare takes no other signal; the daemon gets SIGTERM of it
        super().close()
        until(lambda: not self.api.exists(), "the daemon's end")

    def command(self, argv: list[str]) -> list[str]:
        script = 'mount --rbind / "$0" && mount --bind /proc "$1" && mount -t proc proc /proc'
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child=TERM", "sh", "-c"),
            *(f'{script} && shift && exec "$@"', str(self._root), str(self._proc)),
            *(sys.executable, *argv),
        ]


@in_new_netns
@pytest.mark.timeout(120)
def test_a_node_that_does_not_see_the_hosts_processes(tmp_path: Path) -> None:
    make_bridge("weave")
    with new_netns() as one, Contained(tmp_path) as node:
        process = one.run(lambda: holder(one.fileno()))
        try:
            assert node.says("attach", "--pid", str(process.pid), "c1") == "10.32.1.1\n"
            assert addresses_in(one, "ethwe") == ["10.32.1.1/24"]
            assert node.says("detach", "--pid", str(process.pid), "c1") == "10.32.1.1\n"
            path = f"{tmp_path}/link"
            Path(path).symlink_to(f"/proc/{process.pid}/ns/net")
            assert node.says("attach", "--netns", path, "c1").startswith("10.32.1.")
            assert "no such" in node.refuses("attach", "--pid", "999999999", "c2")
        finally:
            process.kill()
            process.wait()
