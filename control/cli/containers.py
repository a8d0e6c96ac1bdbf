"""Containers by their names: named namespaces, and runtimes that speak Docker's API.

Podman answers Docker's requests on its own socket; where that is not served, its command is asked.
Other runtimes' containers are named by ``--pid`` or ``--netns``. Looked up by the command, which
sees the host as its user does, not by the daemon.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from base.errors import ConfigError
from cni.names import check_container_id

NAMED: Final = Path("/var/run/netns")
SOCKETS: Final = (Path("/run/podman/podman.sock"), Path("/var/run/docker.sock"))
_TIMEOUT_S: Final = 10.0


@dataclass(slots=True, frozen=True)
class Container:
    """A running container: its whole id and a path to its network namespace."""

    ident: str
    netns: str


def find(name: str) -> Container:
    """The container that is called, or whose id is or begins with, ``name``.

    Raises:
        ConfigError: nobody knows it, or it does not run.
    """
    check_container_id(name)
    if (NAMED / name).exists():
        return Container(name, str(NAMED / name))
    for socket in SOCKETS:
        if socket.exists() and (found := _ask_socket(socket, name)) is not None:
            return _running(name, found)
    if (podman := shutil.which("podman")) is not None:
        found = _ask_command(podman, name)
        if found is not None:
            return _running(name, found)
    raise ConfigError(
        f'attach: no container "{name}" is known to podman, Docker or ip netns; name its '
        "namespace with --netns or a process of it with --pid"
    )


def _running(name: str, found: dict[str, Any]) -> Container:
    state = found.get("State") or {}
    pid = state.get("Pid")
    if not isinstance(pid, int) or pid <= 0:
        raise ConfigError(f'attach: container "{name}" is not running; start it first')
    return Container(check_container_id(str(found.get("Id", ""))), f"/proc/{pid}/ns/net")


def _ask_socket(socket: Path, name: str) -> dict[str, Any] | None:
    transport = httpx.HTTPTransport(uds=str(socket))
    try:
        with httpx.Client(transport=transport, timeout=_TIMEOUT_S) as client:
            answer = client.get(f"http://localhost/v1.24/containers/{quote(name)}/json")
            return _object(answer.text) if answer.status_code == httpx.codes.OK else None
    except httpx.HTTPError:
        return None  # nobody serves it at the moment


def _ask_command(podman: str, name: str) -> dict[str, Any] | None:
    argv = [podman, "inspect", "--type", "container", "--format", "json", name]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _object(done.stdout) if done.returncode == 0 else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, dict) else None
