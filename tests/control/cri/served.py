"""A runtime that answers whatever a test wants, on a Unix socket, and answers put together."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import grpc

from control.cri.client import SERVICE
from control.cri.messages import MESSAGES, declare

CLASSES = declare(MESSAGES)
NETNS = "/run/netns/x"
#: An answer that never comes.
SILENCE = None


class FakeRuntime(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves each method that is given, with these bytes; a context."""

    def __init__(self, socket: Path, **answers: bytes | None) -> None:
        self._answers = answers
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(4)
        # what it may send is the caller's own limit
        options = [("grpc.max_send_message_length", -1)]
        self._server = grpc.server(self._threads, handlers=(self,), options=options)
        self._server.add_insecure_port(f"unix:{quote(str(socket))}")

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.removeprefix(SERVICE)
        if method not in self._answers:
            return None
        return grpc.unary_unary_rpc_method_handler(self._answer(self._answers[method]))

    def _answer(self, answer: bytes | None) -> Callable[[bytes, Any], bytes]:
        def handle(_: bytes, context: Any) -> bytes:
            if answer is SILENCE:
                self._closing.wait()
                return b""
            return answer

        return handle

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.stop(None).wait()
        self._threads.shutdown()


def encode(name: str, **values: Any) -> bytes:
    """Bytes of a message."""
    encoded: bytes = CLASSES[name](**values).SerializeToString()
    return encoded


def status(info: object = None, network: int = 0) -> bytes:
    """A pod's status; ``info`` as JSON, if there is any."""
    entries = [] if info is None else [{"key": "info", "value": json.dumps(info)}]
    return encode(
        "PodSandboxStatusResponse",
        status={"linux": {"namespaces": {"options": {"network": network}}}},
        info=entries,
    )


def hosted(*, ready: bool = True, namespace: str = "default", **pods: str) -> dict[str, bytes]:
    """Answers of a runtime with these pods, name → id, all of them in one namespace."""
    items = [
        {"id": ident, "metadata": {"name": name, "namespace": namespace}, "state": int(not ready)}
        for name, ident in pods.items()
    ]
    spec = {"linux": {"namespaces": [{"type": "ipc"}, {"type": "network", "path": NETNS}]}}
    return {
        "ListPodSandbox": encode("ListPodSandboxResponse", items=items),
        "ListContainers": b"",
        "PodSandboxStatus": status({"pid": 7, "runtimeSpec": spec}),
    }
