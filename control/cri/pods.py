"""Which pod is meant by a name, and where its network namespace is; without I/O.

A name may be that of a pod, alone or as ``namespace/name``, or of a container in it; a whole id of
either; the beginning of an id. These three are tried in this order, ids first. A pod that was
started anew has its earlier sandbox beside it under the same name, so those that are ready go
before those that are not.

Source of truth: node specification 6 and 10; for where the namespace's path stands, the verbose
status of containerd and CRI-O (``info``, JSON). cri-dockerd tells none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from base.errors import ConfigError
from control.cri.messages import NAMESPACE_NODE, SANDBOX_READY

_INFO: Final = "info"
_NETWORK: Final = "network"


@dataclass(slots=True, frozen=True)
class Pod:
    """A pod's sandbox, which is what has the namespace; ``ready`` while it runs."""

    ident: str
    namespace: str
    name: str
    ready: bool

    @property
    def label(self) -> str:
        """``namespace/name``."""
        return "/".join(part for part in (self.namespace, self.name) if part)


@dataclass(slots=True, frozen=True)
class PodContainer:
    """A container of a pod."""

    ident: str
    pod_ident: str
    name: str


class _Namespace(msgspec.Struct):
    type: str = ""
    path: str | None = None


class _Linux(msgspec.Struct):
    namespaces: list[_Namespace] | None = None


class _Spec(msgspec.Struct):
    linux: _Linux | None = None


class _Info(msgspec.Struct, rename="camel"):
    pid: int = 0
    runtime_spec: _Spec | None = None


def read_pods(answer: Any) -> list[Pod]:
    """From a ``ListPodSandboxResponse``; a pod without an id is none."""
    return [
        Pod(one.id, one.metadata.namespace, one.metadata.name, one.state == SANDBOX_READY)
        for one in answer.items
        if one.id
    ]


def read_containers(answer: Any) -> list[PodContainer]:
    """From a ``ListContainersResponse``; a container without an id is none."""
    return [
        PodContainer(one.id, one.pod_sandbox_id, one.metadata.name)
        for one in answer.containers
        if one.id
    ]


def choose(name: str, pods: Sequence[Pod], containers: Iterable[PodContainer]) -> Pod | None:
    """The pod that ``name`` means; None when there is no such pod.

    Raises:
        ConfigError: there are several.
    """
    by_ident = {pod.ident: pod for pod in pods}
    inside = [(one, by_ident[one.pod_ident]) for one in containers if one.pod_ident in by_ident]
    idents = [(pod.ident, pod) for pod in pods] + [(one.ident, pod) for one, pod in inside]
    names = [(text, pod) for pod in pods for text in (pod.name, pod.label)]
    names += [(one.name, pod) for one, pod in inside]
    for found in (
        [pod for ident, pod in idents if ident == name],
        [pod for text, pod in names if text == name],
        [pod for ident, pod in idents if ident.startswith(name)],
    ):
        candidates = {pod.ident: pod for pod in found}
        ready = [pod for pod in candidates.values() if pod.ready]
        left = ready or list(candidates.values())
        if len(left) > 1:
            raise ConfigError(
                f'container "{name}": {len(left)} pods have a name or an id like this; give more '
                "of the id, or the pod as namespace/name"
            )
        if left:
            return left[0]
    return None


def on_host_network(answer: Any) -> bool:
    """Whether a ``PodSandboxStatusResponse`` is of a pod without a namespace of its own."""
    mode: int = answer.status.linux.namespaces.options.network
    return mode == NAMESPACE_NODE


def netns_path(answer: Any) -> str:
    """Path to the namespace from a verbose ``PodSandboxStatusResponse``; "" if it tells none."""
    for entry in answer.info:
        if entry.key != _INFO:
            continue
        try:
            info = msgspec.json.decode(entry.value, type=_Info)
        except (msgspec.DecodeError, RecursionError):
            return ""
        linux = info.runtime_spec and info.runtime_spec.linux
        for one in (linux and linux.namespaces) or ():
            if one.type == _NETWORK and one.path and one.path.startswith("/"):
                return one.path
        return f"/proc/{info.pid}/ns/net" if info.pid > 0 else ""
    return ""
