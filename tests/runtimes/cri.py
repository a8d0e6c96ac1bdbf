"""As much of the Container Runtime Interface as a sandbox needs, over containerd's socket.

Messages are protobuf, written by hand: a handful of fields of text and nested messages. Source:
kubernetes/cri-api, pkg/apis/runtime/v1/api.proto (field numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

_SERVICE = "/runtime.v1.RuntimeService/"
TIMEOUT_S = 60


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(number: int, value: str | bytes) -> bytes:
    """A field of text, or of a nested message's bytes."""
    body = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def number(field: int, value: int) -> bytes:
    """A field of a whole number."""
    return _varint(field << 3) + _varint(value)


def fields(body: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Fields of a message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(body):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            length = varint()
            at += length
            yield key >> 3, body[at - length : at]
        else:
            raise ValueError(f"wire type {key & 7}")


def nested(body: bytes, *path: int) -> list[bytes]:
    """All texts or messages at a path of field numbers."""
    found = [body]
    for step in path:
        found = [
            value
            for one in found
            for key, value in fields(one)
            if key == step and isinstance(value, bytes)
        ]
    return found


@dataclass(frozen=True)
class Sandbox:
    """A pod sandbox's description."""

    name: str
    uid: str
    host_port: int = 0

    def encode(self) -> bytes:
        metadata = text(1, self.name) + text(2, self.uid) + text(3, "default")
        body = text(1, metadata) + text(2, self.name)
        if self.host_port:
            body += text(5, number(2, 80) + number(3, self.host_port))
        return body + text(8, b"")


class Cri:
    """The runtime service."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix://{socket}", options=[("grpc.enable_http_proxy", 0)]
        )

    def call(self, method: str, request: bytes = b"") -> bytes:
        """One call.

        Raises:
            grpc.RpcError: the runtime refused.
        """
        unary = self._channel.unary_unary(_SERVICE + method)
        answer: bytes = unary(request, timeout=TIMEOUT_S)
        return answer

    def ready(self) -> dict[str, bool]:
        """Conditions of the runtime: RuntimeReady, NetworkReady."""
        found = {}
        for condition in nested(self.call("Status"), 1, 1):
            known = dict(fields(condition))
            name = known[1]
            found[name.decode() if isinstance(name, bytes) else ""] = known.get(2) == 1
        return found

    def run(self, sandbox: Sandbox) -> str:
        """Make and start a sandbox; its id."""
        answer = self.call("RunPodSandbox", text(1, sandbox.encode()))
        return nested(answer, 1)[0].decode()

    def address(self, sandbox_id: str) -> str:
        """Its address."""
        answer = self.call("PodSandboxStatus", text(1, sandbox_id))
        return nested(answer, 1, 5, 1)[0].decode()

    def stop(self, sandbox_id: str) -> None:
        """Stop it."""
        self.call("StopPodSandbox", text(1, sandbox_id))

    def remove(self, sandbox_id: str) -> None:
        """Remove it."""
        self.call("RemovePodSandbox", text(1, sandbox_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
