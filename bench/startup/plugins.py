"""Calling plugins with as little of our own around it as can be: one posix_spawn, one wait.

All calls are made by one thread, which is in the host's network namespace: the reference plugins
work in the namespace that they are started in.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from base.errors import WeftError
from lab import syscalls


@dataclass(slots=True, frozen=True)
class Network:
    """A plugin and its configuration, written to ``config``."""

    plugin: Path
    config: Path

    @classmethod
    def write(cls, plugin: Path, folder: Path, name: str, shape: Mapping[str, Any]) -> Self:
        """With the configuration in a file of ``folder``."""
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, **shape}))
        return cls(plugin, path)


class Pods:
    """Network namespaces, held by descriptors."""

    def __init__(self, count: int) -> None:
        self.fds: list[int] = []
        maker = threading.Thread(target=self._make, args=(count,))
        maker.start()
        maker.join()
        if len(self.fds) != count:
            raise WeftError("no privilege for network namespaces")

    def _make(self, count: int) -> None:
        for _ in range(count):
            syscalls.unshare(syscalls.CLONE_NEWNET)
            self.fds.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def path(self, index: int) -> str:
        """A path to one for other processes."""
        return f"/proc/{os.getpid()}/fd/{self.fds[index]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


class Caller:
    """Starts plugins from within a host's network namespace."""

    def __init__(self, netns: str, folder: Path, path: str) -> None:
        self._output = folder / "stdout"
        self._path = path
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(netns,))

    def spawn(
        self, command: str, network: Network, container: str, netns: str, output: Path
    ) -> int:
        """Start a call; its process id. For the caller's own thread."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self._path,
            "PATH": os.environ["PATH"],
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, str(network.config), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        ]
        return os.posix_spawn(
            network.plugin, [str(network.plugin)], environment, file_actions=actions
        )

    def call(self, command: str, network: Network, container: str, netns: str = "") -> float:
        """One call, to its end; seconds.

        Raises:
            WeftError: it failed.
        """
        return self._thread.submit(self._call, command, network, container, netns).result()

    def _call(self, command: str, network: Network, container: str, netns: str) -> float:
        begin = time.perf_counter()
        pid = self.spawn(command, network, container, netns, self._output)
        _, status = os.waitpid(pid, 0)
        took_s = time.perf_counter() - begin
        if status != 0:
            raise WeftError(f"{command} of {network.plugin}: {self._output.read_text()}")
        return took_s

    def at_once(self, network: Network, pods: Pods, folder: Path) -> tuple[float, list[str]]:
        """ADD for every pod at the same time; seconds to the end of the last, and the addresses.

        Raises:
            WeftError: one failed.
        """
        return self._thread.submit(self._at_once, network, pods, folder).result()

    def _at_once(self, network: Network, pods: Pods, folder: Path) -> tuple[float, list[str]]:
        outputs = [folder / f"stdout-{number}" for number in range(len(pods.fds))]
        begin = time.perf_counter()
        pids = [
            self.spawn("ADD", network, f"many{number}", pods.path(number), output)
            for number, output in enumerate(outputs)
        ]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        took_s = time.perf_counter() - begin
        for status, output in zip(statuses, outputs, strict=True):
            if status != 0:
                raise WeftError(f"ADD of many: {output.read_text()}")
        shapes = [json.loads(output.read_bytes()) for output in outputs]
        return took_s, [shape["ips"][0]["address"] for shape in shapes]

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _enter(netns: str) -> None:
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
    finally:
        os.close(fd)
