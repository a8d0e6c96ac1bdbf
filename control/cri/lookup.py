"""A pod by name, asked of one runtime: its lists, then the pod's verbose status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from base.errors import ConfigError
from control.cri.client import TIMEOUT_S, CriClient
from control.cri.pods import Pod, choose, netns_path, on_host_network, read_containers, read_pods


@dataclass(slots=True, frozen=True)
class FoundPod:
    """A pod and a path to its namespace: "" if it does not run, or if the runtime tells none."""

    pod: Pod
    netns: str


def find_pod(socket: Path, name: str, *, timeout_s: float = TIMEOUT_S) -> FoundPod | None:
    """The pod that ``name`` means to the runtime at ``socket``; None when it knows no such pod.

    Asks three times at most, each for ``timeout_s`` at most.

    Raises:
        CriError: the runtime does not answer as it should.
        ConfigError: several pods are meant, or the pod is on the host's network.
    """
    with CriClient(socket, timeout_s=timeout_s) as client:
        pods = read_pods(client.call("ListPodSandbox"))
        containers = read_containers(client.call("ListContainers"))
        pod = choose(name, pods, containers)
        if pod is None:
            return None
        if not pod.ready:
            return FoundPod(pod, "")
        status = client.call("PodSandboxStatus", pod_sandbox_id=pod.ident, verbose=True)
    if on_host_network(status):
        raise ConfigError(
            f'container "{name}": its pod is on the host\'s own network, which is not attached; '
            "see 'weft expose --help'"
        )
    return FoundPod(pod, netns_path(status))
