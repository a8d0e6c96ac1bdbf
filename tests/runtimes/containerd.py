"""A containerd with its CRI plugin."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from control.cri.client import CriError
from tests.control.processes import until
from tests.runtimes.cri import Cri

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
    """A containerd of our own, with its files in ``folder``.

    It is started in the caller's network, or in that of ``prefix``, a command that runs another.
    """

    def __init__(
        self, folder: Path, plugins: Path, configs: Path, *, prefix: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self.socket = folder / "containerd.sock"
        configuration = folder / "config.toml"
        configuration.write_text(
            CONFIG.format(folder=folder, image=IMAGE, plugins=plugins, configs=configs)
        )
        self._log = (folder / "containerd.log").open("w")
        self._process = subprocess.Popen(
            [*prefix, "containerd", "--config", configuration],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def wait(self) -> None:
        """Until it serves."""

        def serves() -> bool:
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(CriError), Cri(self.socket) as cri:
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
        """End it and what it started, namespaces too."""
        with contextlib.suppress(CriError), Cri(self.socket) as cri:
            for sandbox in cri.sandboxes():
                cri.stop(sandbox)
                cri.remove(sandbox)
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
