"""A lab host as a container runtime sees it: its network, our plugins, a root file system.

The runtime itself runs in the machine's own mount and process namespaces, only its network is the
lab host's: cgroups and overlay mounts are the machine's business.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lab.host import Host, weft_argv, weft_environment
from tests.control.cni.runtime import REFERENCE, inside

SOURCE = Path(__file__).with_name("server.c")
TIMEOUT_S = 90


class Node:
    """Folders and commands of one host."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.bin = folder / "bin"
        self.configs = folder / "net.d"
        folder.mkdir()

    def run(
        self, *argv: str | Path, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host's network."""
        done = subprocess.run(
            ["nsenter", f"--net={self.host.namespace.net_path}", *argv],
            env={**weft_environment(), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done

    def setup_cni(self, *options: str) -> None:
        """``weft setup-cni``, as documented."""
        self.run(
            *weft_argv(),
            "setup-cni",
            f"--plugin-dir={self.bin}",
            f"--config-dir={self.configs}",
            f"--control-socket={self.host.run_path / 'router.sock'}",
            f"--db-prefix={self.host.run_path / 'weft-'}",
            "--wait=20",
            *options,
            CNI_PATH=str(REFERENCE),
        )

    def add_network(self, name: str, *plugins: dict[str, Any]) -> None:
        """Another network of the user's own."""
        shape = {"cniVersion": "1.0.0", "name": name, "plugins": list(plugins)}
        (self.configs / f"20-{name}.conflist").write_text(json.dumps(shape))

    async def attached(self) -> dict[str, list[str]]:
        """Container, cut short → its addresses, as ``weft ps`` shows them."""
        shown = await self.host.weft_command("ps", "--http-addr", self.host.http_socket)
        found = {}
        for line in shown.splitlines():
            container, _, *addresses = line.split()
            if container != "weave:expose":
                found[container] = addresses
        return found

    def fetch(self, address: str, port: int) -> str:
        """What a TCP server says, asked from the host."""
        script = f"exec 3<>/dev/tcp/{address}/{port}; head -n1 <&3"
        return self.run("timeout", "20", "bash", "-c", script, check=False).stdout.strip()


def build_root(folder: Path) -> Path:
    """A root file system that holds one program, ``/server``."""
    root = folder / "rootfs"
    for name in ("proc", "sys", "dev", "etc", "run"):
        (root / name).mkdir(parents=True)
    subprocess.run(
        ["gcc", "-std=gnu11", "-O2", "-static", "-Wall", "-Werror", "-o", root / "server", SOURCE],
        check=True,
    )
    return root


class Podman:
    """podman with storage of its own and the CNI back end."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._containers: set[str] = set()
        folder = node.folder
        self._configuration = folder / "containers.conf"
        self._configuration.write_text(
            "[network]\n"
            'network_backend = "cni"\n'
            f'cni_plugin_dirs = ["{node.bin}", "{REFERENCE}"]\n'
            f'network_config_dir = "{node.configs}"\n'
            "[engine]\n"
            'cgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\n'
            'runtime = "runc"\n'
        )
        self._argv = ["podman", f"--root={folder}/storage", f"--runroot={folder}/runroot"]
        self._argv.append(f"--tmpdir={folder}/tmp")

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run a podman command."""
        environment = {"CONTAINERS_CONF": str(self._configuration)}
        return self._node.run(*self._argv, *arguments, check=check, **environment).stdout.strip()

    def run(self, name: str, root: Path, *options: str) -> str:
        """Start a container from the root file system; its id."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        self._containers.add(name)
        return self(
            "run", "-d", "--name", name, *limits, *options, "--rootfs", str(root), "/server"
        )

    def remove(self, name: str) -> None:
        """``podman rm``."""
        self("rm", "-f", "-t", "0", name)
        self._containers.discard(name)

    def address(self, name: str, network: str = "weave") -> str:
        """What podman knows of its address."""
        networks = json.loads(
            self("inspect", name, "--format", "{{json .NetworkSettings.Networks}}")
        )
        return str(networks[network]["IPAddress"])

    def netns(self, name: str) -> str:
        """Path of its namespace."""
        return self("inspect", name, "--format", "{{.NetworkSettings.SandboxKey}}")

    def ping(self, name: str, address: str) -> None:
        """From a container."""
        inside(self.netns(name), "ping", "-n", "-c2", "-i0.2", "-W5", address)

    def close(self) -> None:
        """Nothing of it stays on the machine."""
        for name in list(self._containers):
            self("rm", "-f", "-t", "0", name, check=False)
        shutil.rmtree(self._node.folder / "storage", ignore_errors=True)
