"""One HTTP request of the command line, over TCP or a Unix socket.

By httpcore alone: what httpx lays on top of it takes longer to import than most commands run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

#: Nobody listens there, or we may not reach who does.
UNREACHED: Final = (httpcore.ConnectError, httpcore.ConnectTimeout)
#: It was closed instead of answered.
CUT_OFF: Final = (httpcore.ReadError, httpcore.RemoteProtocolError)
#: Those and all else: no answer.
NO_ANSWER: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
#: What our own server, and most others, take of a request's first line.
TARGET_LEN_MAX: Final = 60_000


@dataclass(slots=True, frozen=True)
class Answer:
    """What was answered, and the ``path`` that was asked for."""

    status: int
    content: bytes
    path: str

    @property
    def is_success(self) -> bool:
        """Whether this is content, and neither an error nor a redirect."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The content as text; U+FFFD for what is none."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The content decoded. Raises ValueError if it is no JSON."""
        return json.loads(self.content)


def request(
    where: Path | str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: str | None = None,
    timeout_s: float | None,
) -> Answer:
    """Ask at ``where``, a Unix socket or ``host:port``, for ``target``: path and query, quoted.

    ``timeout_s`` is for each connecting, sending and piece of the answer; None: for ever. A proxy
    that the environment names is not used: this is our own host, or one that the user named.

    Raises:
        One of :data:`NO_ANSWER`.
    """
    over_unix = isinstance(where, Path)
    host = "localhost" if over_unix else where
    with httpcore.ConnectionPool(uds=str(where) if over_unix else None) as pool:
        answer = pool.request(
            method,
            f"http://{host}{target}",
            headers=[(name, value) for name, value in (headers or {}).items()],
            content=None if content is None else content.encode(),
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)},
        )
    return Answer(answer.status, answer.content, urlsplit(target).path)
