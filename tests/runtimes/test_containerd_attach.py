"""Pods of a containerd with a network of its own, attached by hand under each of their names."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.cli.containers import CRI_VARIABLE
from tests.cni.wires import make_bridge
from tests.control.cni.runtime import REFERENCE, inside
from tests.control.test_attach_cli import BRIDGE_ADDRESS, Daemon
from tests.native.namespace import in_new_netns
from tests.runtimes.containerd import IMAGE, Containerd
from tests.runtimes.cri import Cri, Sandbox
from tests.runtimes.host import build_root
from tests.runtimes.image import build_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="containerd is not installed"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is made for x86-64"),
]

NAMED = Path("/var/run/netns")


@contextlib.contextmanager
def pods_elsewhere() -> Iterator[Containerd]:
    """A containerd in the caller's network whose pods are on a bridge that is not ours."""
    with tempfile.TemporaryDirectory(prefix="weft-") as name:
        folder = Path(name)
        build_image(build_root(folder) / "server", IMAGE, folder / "pause.tar")
        plugins, configs = folder / "bin", folder / "net.d"
        plugins.mkdir()
        configs.mkdir()
        for plugin in ("bridge", "host-local", "loopback"):
            shutil.copy(REFERENCE / plugin, plugins)
        ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": f"{folder}/ipam"}
        network = {"type": "bridge", "bridge": "pods0", "ipam": ipam}
        shape = {"cniVersion": "1.0.0", "name": "other", "plugins": [network]}
        (configs / "10-other.conflist").write_text(json.dumps(shape))
        containerd = Containerd(folder, plugins, configs)
        try:
            containerd.wait()
            containerd.load(folder / "pause.tar")
            yield containerd
        except BaseException:  # whatever failed, its log may say why
            print(containerd.log())
            raise
        finally:
            containerd.close()


def netns_of(cri: Cri, sandbox_id: str) -> str:
    """Path of the sandbox's namespace."""
    answer = cri.call("PodSandboxStatus", pod_sandbox_id=sandbox_id, verbose=True)
    (path,) = re.findall(rf'"path":"({NAMED}/[^"]+)"', answer.info[0].value)
    return str(path)


@in_new_netns
def test_pods_attached_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bridge("weave", BRIDGE_ADDRESS)
    with pods_elsewhere() as containerd, Daemon(tmp_path) as node, Cri(containerd.socket) as cri:
        monkeypatch.setenv(CRI_VARIABLE, f"unix://{containerd.socket}")
        asked = node.refuses("attach", "default/web-0")
        assert f"not known here; asked: {containerd.socket}; name" in asked
        web, db = Sandbox("web-0", "uid0"), Sandbox("db-0", "uid1")
        first, second = cri.run(web), cri.run(db)
        app = cri.start(first, web, "app", IMAGE)
        cri.start(first, web, "sidecar", IMAGE)
        cri.start(second, db, "app", IMAGE)
        cri.run(Sandbox("agent", "uid2", host_network=True))
        # each way to name a pod; it is the pod that is attached, once
        for name in ("default/web-0", "web-0", "sidecar", app, app[:20], first, first[:20]):
            assert node.says("attach", name) == "10.32.1.1\n"
        assert node.says("attach", "db-0") == "10.32.1.2\n"
        inside(netns_of(cri, second), "ping", "-n", "-c2", "-i0.2", "-W5", "10.32.1.1")
        row = node.says("ps", "sidecar")
        assert re.fullmatch(rf"{first[:12]} [0-9a-f:]+ 10\.32\.1\.1/24\n", row)
        assert node.says("ps", "default/web-0") == node.says("ps", first[:20]) == row
        (made,) = json.loads(node.says("ps", "--json", "web-0"))
        assert (made["Container"], made["Label"]) == (first, "default/web-0")
        # what is refused
        for command in ("attach", "detach", "ps"):
            assert "2 pods" in node.refuses(command, "app")
        assert "host's own network" in node.refuses("attach", "agent")
        assert "not known here" in node.refuses("detach", "default/nobody")
        # a pod that is stopped, and one that is gone
        cri.stop(first)
        assert "not running" in node.refuses("attach", "web-0")
        assert node.says("detach", "web-0") == "10.32.1.1\n"
        cri.stop(second)
        cri.remove(second)
        assert node.says("detach", "db-0") == "10.32.1.2\n"
        assert node.says("audit") == "nothing is left over\n"
