"""Containers by their names: of ``ip netns``, podman, Docker, and runtimes that speak the CRI.

Podman answers Docker's requests on its own socket; where that is not served, its command is asked.
Of a CRI runtime (containerd, CRI-O) it is a pod that is found, by its own name or id or by those of
a container in it. Other containers are named by ``--pid`` or ``--netns``. Looked up by the command,
which sees the host as its user does, not by the daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from base.errors import ConfigError
from cni.names import check_container_id
from control.cli.http_request import NO_ANSWER, request

NAMED: Final = Path("/var/run/netns")
PODMAN_SOCKET: Final = Path("/run/podman/podman.sock")
DOCKER_SOCKET: Final = Path("/var/run/docker.sock")
#: Where containerd, CRI-O, Docker's adapter and the containerd of k3s serve the CRI.
CRI_SOCKETS: Final = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/crio/crio.sock"),
    Path("/var/run/cri-dockerd.sock"),
    Path("/run/k3s/containerd/containerd.sock"),
)
#: Another place, as crictl has it: ``unix:///path``.
CRI_VARIABLE: Final = "CONTAINER_RUNTIME_ENDPOINT"
_TIMEOUT_S: Final = 10.0


class UnknownContainerError(ConfigError):
    """Nobody who was asked knows the container."""


@dataclass(slots=True, frozen=True)
class Container:
    """A container: its whole id, a path to its network namespace, a name for people.

    ``netns`` is "" while it does not run; ``label`` is a pod's ``namespace/name``, else "".
    """

    ident: str
    netns: str
    label: str = ""


def find(name: str) -> Container:
    """The running container that ``name`` means; see :func:`look_up`.

    Raises:
        ConfigError: as :func:`look_up`, or it does not run.
    """
    found = look_up(name)
    if not found.netns:
        raise ConfigError(f'container "{name}" is not running; start it first')
    return found


def look_up(name: str) -> Container:
    """The container that is called, or whose id is or begins with, ``name``.

    A pod's name may have its Kubernetes namespace before it: ``namespace/name``.

    Raises:
        UnknownContainerError: nobody knows it; the message says who was asked.
        ConfigError: it is no name, several have it, or it has no namespace of its own.
    """
    check_name(name)
    asked: list[str] = []
    found = None if "/" in name else _look_beside_pods(name, asked)
    found = found or _look_among_pods(name, asked)
    if found is not None:
        return found
    raise UnknownContainerError(
        f'container "{name}" is not known here; asked: '
        f"{', '.join(asked) or 'nobody, as no runtime serves the CRI'}; name its namespace with "
        "--netns or a process of it with --pid"
    )


def check_name(name: str) -> None:
    """See that ``name`` is like an id, or like two of them with a ``/`` between.

    Raises:
        ConfigError: it is not.
    """
    for part in name.split("/", 1):
        check_container_id(part)


def _look_beside_pods(name: str, asked: list[str]) -> Container | None:
    """Look with all but the CRI; who was asked is added to ``asked``."""
    asked.append("ip netns")
    if _exists(NAMED / name):
        return Container(name, str(NAMED / name))
    for socket in (PODMAN_SOCKET, DOCKER_SOCKET):
        if _exists(socket):
            asked.append(str(socket))
            if (found := _ask_socket(socket, name)) is not None:
                return _container(found)
    if (podman := shutil.which("podman")) is not None:
        asked.append(podman)
        if (found := _ask_command(podman, name)) is not None:
            return _container(found)
    return None


def _look_among_pods(name: str, asked: list[str]) -> Container | None:
    """Look with the runtimes that speak the CRI; who was asked is added to ``asked``."""
    sockets = _cri_sockets()
    if not sockets:
        return None
    from control.cri.client import CriError
    from control.cri.lookup import find_pod

    for socket in sockets:
        try:
            found = find_pod(socket, name)
        except CriError as err:
            asked.append(f"{socket} ({err})")
            continue
        asked.append(str(socket))
        if found is None:
            continue
        pod, netns = found.pod, found.netns
        label = pod.label if pod.label.isprintable() else ""
        if pod.ready and not netns:
            # Docker's adapter does not tell, but the id is that of a container of Docker's
            netns = _docker_netns(pod.ident)
            if not netns:
                raise ConfigError(
                    f'container "{name}": the runtime at {socket} does not tell where its network '
                    "namespace is; name it with --netns or a process of it with --pid"
                )
        return Container(check_container_id(pod.ident), netns, label)
    return None


def _cri_sockets() -> list[Path]:
    """Those that are there; or the one that the user names, there or not."""
    endpoint = os.environ.get(CRI_VARIABLE, "")
    if not endpoint:
        return [socket for socket in CRI_SOCKETS if _exists(socket)]
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        raise ConfigError(f'{CRI_VARIABLE}: "{endpoint}" has to be unix:// and an absolute path')
    return [Path(path)]


def _docker_netns(ident: str) -> str:
    found = _ask_socket(DOCKER_SOCKET, ident) if _exists(DOCKER_SOCKET) else None
    return "" if found is None else _container(found).netns


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that is not ours to look into
        return False


def _container(found: dict[str, Any]) -> Container:
    """From what Docker's API says of a container."""
    ident = check_container_id(str(found.get("Id", "")))
    state = found.get("State")
    pid = state.get("Pid") if isinstance(state, dict) else None
    runs = isinstance(pid, int) and pid > 0
    return Container(ident, f"/proc/{pid}/ns/net" if runs else "")


def _ask_socket(socket: Path, name: str) -> dict[str, Any] | None:
    target = f"/v1.24/containers/{quote(name)}/json"
    try:
        answer = request(socket, "GET", target, timeout_s=_TIMEOUT_S)
        return _object(answer.text) if answer.status == HTTPStatus.OK else None
    except NO_ANSWER:
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
