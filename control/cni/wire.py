"""What the stub and control say to each other, as bytes. Sans-IO.

The frames are drawn in ``cni/stub/weft_cni.c``. At most one descriptor comes with a request: the
container's network namespace, opened with O_PATH.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from base.errors import RemoteProtocolError

LENGTH_LEN: Final = 4
REQUEST_LEN_MAX: Final = (1 << 20) + 64 + (256 << 10)
_VERSION: Final = 1
_VARIABLES_MAX: Final = 4096
_ANSWER_HEADER: Final = struct.Struct(">IBI")


@dataclass(slots=True, frozen=True)
class Request:
    """One call of a plugin. ``config`` are the bytes of its standard input."""

    personality: str
    variables: Mapping[str, str]
    config: bytes


@dataclass(slots=True, frozen=True)
class Answer:
    """What the stub is to print, and the status it is to exit with (0 to 255)."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


def request_length(header: bytes) -> int:
    """Bytes behind the 4-byte length.

    Raises:
        RemoteProtocolError: more than a request can have, or fewer.
    """
    length = int.from_bytes(header[:LENGTH_LEN], "big")
    if not 3 <= length <= REQUEST_LEN_MAX:
        raise RemoteProtocolError(f"CNI request of {length} bytes")
    return length


def decode_request(body: bytes) -> Request:
    """The request behind its length; also what a file of a pending DEL holds.

    Raises:
        RemoteProtocolError: it is not laid out as one.
    """
    if not body or body[0] != _VERSION:
        raise RemoteProtocolError("CNI request of another version")
    end = body.find(b"\0\0", 1)
    if end < 0:
        raise RemoteProtocolError("CNI request without an end of its variables")
    try:
        personality, *pairs = body[1:end].decode().split("\0")
    except UnicodeDecodeError as err:
        raise RemoteProtocolError("CNI request is not in UTF-8") from err
    if len(pairs) > _VARIABLES_MAX:
        raise RemoteProtocolError("CNI request with too many variables")
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RemoteProtocolError("CNI request with a variable that has no value")
        variables[name] = value
    return Request(personality, variables, body[end + 2 :])


def encode_request(request: Request) -> bytes:
    """The bytes of a request without its length, as the stub writes them into a file."""
    words = [request.personality, *(f"{key}={value}" for key, value in request.variables.items())]
    return bytes([_VERSION]) + "\0".join(words).encode() + b"\0\0" + request.config


def encode_answer(answer: Answer) -> bytes:
    """The bytes of an answer with its length."""
    length = _ANSWER_HEADER.size - LENGTH_LEN + len(answer.stderr) + len(answer.stdout)
    header = _ANSWER_HEADER.pack(length, answer.status, len(answer.stderr))
    return header + answer.stderr + answer.stdout
