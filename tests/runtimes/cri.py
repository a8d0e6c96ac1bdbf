"""As much of the Container Runtime Interface as a kubelet needs for a pod, over a socket.

Messages and their numbers: kubernetes/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control.cri.client import CriClient
from control.cri.messages import MESSAGES, NAMESPACE_NODE, Fields

TIMEOUT_S = 60

_METADATA = "PodSandboxMetadata"
_MESSAGES: Final[Mapping[str, Fields]] = {
    **MESSAGES,
    "StatusRequest": {},
    "StatusResponse": {"status": (1, "RuntimeStatus")},
    "RuntimeStatus": {"conditions": (1, "*RuntimeCondition")},
    "RuntimeCondition": {"type": (1, "string"), "status": (2, "bool")},
    _METADATA: {**MESSAGES[_METADATA], "uid": (2, "string")},
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig")},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, "string")},
    "PodSandboxConfig": {
        "metadata": (1, _METADATA),
        "hostname": (2, "string"),
        "port_mappings": (5, "*PortMapping"),
        "linux": (8, "LinuxPodSandboxConfig"),
    },
    "PortMapping": {"container_port": (2, "int32"), "host_port": (3, "int32")},
    "LinuxPodSandboxConfig": {"security_context": (2, "LinuxSandboxSecurityContext")},
    "LinuxSandboxSecurityContext": {"namespace_options": (1, "NamespaceOption")},
    "PodSandboxStatus": {**MESSAGES["PodSandboxStatus"], "network": (5, "PodSandboxNetworkStatus")},
    "PodSandboxNetworkStatus": {"ip": (1, "string")},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "StopPodSandboxResponse": {},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "RemovePodSandboxResponse": {},
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, "string"),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodSandboxConfig"),
    },
    "CreateContainerResponse": {"container_id": (1, "string")},
    "ContainerConfig": {"metadata": (1, "ContainerMetadata"), "image": (2, "ImageSpec")},
    "ImageSpec": {"image": (1, "string")},
    "StartContainerRequest": {"container_id": (1, "string")},
    "StartContainerResponse": {},
}


@dataclass(frozen=True)
class Sandbox:
    """A pod sandbox's description."""

    name: str
    uid: str
    host_port: int = 0
    host_network: bool = False

    def config(self) -> dict[str, Any]:
        """Fields of a ``PodSandboxConfig``."""
        mode = NAMESPACE_NODE if self.host_network else 0
        ports = [{"container_port": 80, "host_port": self.host_port}] if self.host_port else []
        return {
            "metadata": {"name": self.name, "uid": self.uid, "namespace": "default"},
            "hostname": "" if self.host_network else self.name,
            "port_mappings": ports,
            "linux": {"security_context": {"namespace_options": {"network": mode}}},
        }


class Cri(CriClient):
    """The runtime service, and what a kubelet asks of it."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket, timeout_s=TIMEOUT_S, messages=_MESSAGES)

    def ready(self) -> dict[str, bool]:
        """Conditions of the runtime: RuntimeReady, NetworkReady."""
        return {each.type: each.status for each in self.call("Status").status.conditions}

    def run(self, sandbox: Sandbox) -> str:
        """Make and start a sandbox; its id."""
        ident: str = self.call("RunPodSandbox", config=sandbox.config()).pod_sandbox_id
        return ident

    def start(self, sandbox_id: str, sandbox: Sandbox, name: str, image: str) -> str:
        """Make and start a container in a sandbox; its id."""
        made = self.call(
            "CreateContainer",
            pod_sandbox_id=sandbox_id,
            config={"metadata": {"name": name}, "image": {"image": image}},
            sandbox_config=sandbox.config(),
        )
        ident: str = made.container_id
        self.call("StartContainer", container_id=ident)
        return ident

    def address(self, sandbox_id: str) -> str:
        """Its address."""
        answer = self.call("PodSandboxStatus", pod_sandbox_id=sandbox_id)
        address: str = answer.status.network.ip
        return address

    def sandboxes(self) -> list[str]:
        """Ids of all there are."""
        return [each.id for each in self.call("ListPodSandbox").items]

    def stop(self, sandbox_id: str) -> None:
        """Stop it."""
        self.call("StopPodSandbox", pod_sandbox_id=sandbox_id)

    def remove(self, sandbox_id: str) -> None:
        """Remove it."""
        self.call("RemovePodSandbox", pod_sandbox_id=sandbox_id)
