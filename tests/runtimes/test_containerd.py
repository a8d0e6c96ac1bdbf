"""containerd with its CRI plugin, as a kubelet drives it."""

from __future__ import annotations

import contextlib
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lab.lab import Lab
from tests.control.cni.runtime import REFERENCE
from tests.control.processes import until
from tests.runtimes.cri import Cri, Sandbox
from tests.runtimes.host import Node, build_root
from tests.runtimes.image import build_image

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="containerd is not installed"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is made for x86-64"),
]

IMAGE = "localhost/weft-pause:1"
CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{configs}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""


class Containerd:
    """A containerd of our own in a host's network."""

    def __init__(self, node: Node) -> None:
        self._folder = node.folder
        self.socket = node.folder / "containerd.sock"
        configuration = node.folder / "config.toml"
        configuration.write_text(
            CONFIG.format(folder=node.folder, image=IMAGE, plugins=node.bin, configs=node.configs)
        )
        self._log = (node.folder / "containerd.log").open("w")
        self._process = subprocess.Popen(
            [
                "nsenter",
                f"--net={node.host.namespace.net_path}",
                "containerd",
                "--config",
                configuration,
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def wait(self) -> None:
        """Until it serves."""

        def serves() -> bool:
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(grpc.RpcError), Cri(self.socket) as cri:
                return cri.ready().get("RuntimeReady", False)
            return False

        until(serves, "containerd serves", 60)

    def log(self) -> str:
        """What it has said."""
        return (self._folder / "containerd.log").read_text()[-4000:]

    def load(self, image: Path) -> None:
        """Import an image for the CRI plugin."""
        done = subprocess.run(
            ["ctr", "-a", self.socket, "-n", "k8s.io", "images", "import", image],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """End it and what it started."""
        for task in ctr(self.socket, "tasks", "list", "-q"):
            ctr(self.socket, "tasks", "kill", "-s", "KILL", task)
            ctr(self.socket, "tasks", "delete", "-f", task)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        self._log.close()


def ctr(socket: Path, *arguments: str) -> list[str]:
    """Lines that ctr prints."""
    done = subprocess.run(
        ["ctr", "-a", socket, "-n", "k8s.io", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.split()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="weft-") as folder:
        yield Path(folder)


@pytest.mark.anyio
async def test_sandbox_made_checked_and_removed(short: Path) -> None:
    root = build_root(short)
    build_image(root / "server", IMAGE, short / "pause.tar")
    async with Lab(1) as lab:
        (host,) = lab.hosts
        node = Node(host, short / "h1")
        node.bin.mkdir()
        node.configs.mkdir()
        for plugin in ("portmap", "loopback"):
            shutil.copy(REFERENCE / plugin, node.bin)
        containerd = Containerd(node)
        try:
            containerd.wait()
            containerd.load(short / "pause.tar")
            with Cri(containerd.socket) as cri:
                # the network is there when the node is, and not before
                assert not cri.ready()["NetworkReady"]
                await host.start_weft(peers=[], attach=False)
                node.setup_cni()
                until(lambda: cri.ready()["NetworkReady"], "network ready", 20)
                sandboxes = [cri.run(Sandbox(f"pod{n}", f"uid{n}", 8080 + n)) for n in range(2)]
                addresses = [cri.address(one) for one in sandboxes]
                attached = await node.attached()
                assert attached == {
                    one[:12]: [f"{address}/12"]
                    for one, address in zip(sandboxes, addresses, strict=True)
                }
                for address in addresses:
                    assert node.fetch(address, 80) == "hello"
                assert node.fetch("127.0.0.1", 8081) == "hello"
                for one in sandboxes:
                    cri.stop(one)
                    cri.remove(one)
                assert await node.attached() == {}
        except BaseException:
            print(containerd.log())
            raise
        finally:
            containerd.close()
