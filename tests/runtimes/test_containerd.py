"""containerd with its CRI plugin, as a kubelet drives it."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.control.cni.runtime import REFERENCE
from tests.control.processes import until
from tests.runtimes.containerd import IMAGE, Containerd
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
        containerd = Containerd(
            node.folder,
            node.bin,
            node.configs,
            prefix=("nsenter", f"--net={host.namespace.net_path}"),
        )
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
