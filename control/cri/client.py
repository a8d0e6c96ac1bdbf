"""One runtime's service, over its Unix socket: a request's message out, an answer's message in.

gRPC is a heavy import; whoever has no socket to ask does not import this module.
Source of truth: kubernetes/cri-api, pkg/apis/runtime/v1/api.proto, service RuntimeService.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

# the library writes its troubles to standard error, which is the command's own
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message import DecodeError

from base.errors import WeftError
from control.cri.messages import MESSAGES, Fields, declare

SERVICE: Final = "/runtime.v1.RuntimeService/"
TIMEOUT_S: Final = 5.0
#: What a kubelet allows, too: thousands of containers.
ANSWER_LEN_MAX: Final = 16 << 20

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    # else one that failed lets the next, made at once, fail unasked
    ("grpc.use_local_subchannel_pool", 1),
    # else the socket's path, which Go's servers refuse as a name of a host
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", ANSWER_LEN_MAX),
)


class CriError(WeftError):
    """The runtime did not answer, refused, or answered what is no message; a few words."""


class CriClient:
    """The runtime service at ``socket``; a context, which closes the connection.

    ``messages`` are those that :meth:`call` can carry. Each call takes ``timeout_s`` at most, the
    connecting included.
    """

    def __init__(
        self,
        socket: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        messages: Mapping[str, Fields] = MESSAGES,
    ) -> None:
        self._timeout_s = timeout_s
        self._messages = declare(messages)
        self._channel = grpc.insecure_channel(f"unix:{quote(str(socket))}", options=_OPTIONS)

    def call(self, method: str, **values: Any) -> Any:
        """Call ``method`` with a request of these values; the answer's message.

        Raises:
            CriError: there is no answer, or none that can be read.
        """
        request = self._messages[f"{method}Request"](**values)
        unary = self._channel.unary_unary(SERVICE + method)
        try:
            answer = unary(request.SerializeToString(), timeout=self._timeout_s)
            return self._messages[f"{method}Response"].FromString(answer)
        except grpc.RpcError as err:
            raise CriError(self._reason(err.code())) from err
        except DecodeError as err:
            raise CriError("its answer cannot be read") from err

    def _reason(self, code: grpc.StatusCode) -> str:
        known = {
            grpc.StatusCode.DEADLINE_EXCEEDED: f"no answer in {self._timeout_s:g} s",
            grpc.StatusCode.UNAVAILABLE: "nobody answers",
            grpc.StatusCode.UNIMPLEMENTED: "does not serve the CRI",
            grpc.StatusCode.RESOURCE_EXHAUSTED: "its answer is too long",
        }
        return known.get(code, f"error {code.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
