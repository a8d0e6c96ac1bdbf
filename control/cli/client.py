"""The command line's side of the HTTP API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from base.errors import WeftError

EXIT_NOT_LAUNCHED = 1
EXIT_NOT_RUNNING = 2
_TIMEOUT_S = 10.0
_TCP_ADDRESS = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}")


class NodeUnreachableError(WeftError):
    """No answer; ``exit_code`` tells "never launched" (1) from "not running" (2)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def get(http_addr: str, path: str, accept: str = "text/plain") -> httpx.Response:
    """GET ``path`` from the node at ``http_addr`` (absolute path of a socket, or ip:port).

    Raises:
        NodeUnreachableError: one line, with the remedy.
    """
    unix = http_addr.startswith("/")
    if unix and not Path(http_addr).exists():
        raise NodeUnreachableError(
            f"--http-addr: no node is launched here (no {http_addr}); run 'weft launch'",
            EXIT_NOT_LAUNCHED,
        )
    if not unix and not _TCP_ADDRESS.fullmatch(http_addr):
        raise NodeUnreachableError(
            f"--http-addr: {http_addr!r} is no address; give an absolute path or IP:PORT",
            EXIT_NOT_LAUNCHED,
        )
    transport = httpx.HTTPTransport(uds=http_addr if unix else None)
    base_url = "http://weft" if unix else f"http://{http_addr}"
    try:
        with httpx.Client(transport=transport, base_url=base_url, timeout=_TIMEOUT_S) as client:
            return client.get(path, headers={"Accept": accept})
    except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as err:
        if "Permission denied" in str(err):
            raise NodeUnreachableError(
                f"--http-addr: {http_addr}: permission denied; run as root", EXIT_NOT_LAUNCHED
            ) from err
        raise NodeUnreachableError(
            f"--http-addr: the node at {http_addr} is not running; run 'weft launch'",
            EXIT_NOT_RUNNING,
        ) from err
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        raise NodeUnreachableError(
            f"--http-addr: no answer from {http_addr} ({err}); give a socket path or IP:PORT",
            EXIT_NOT_LAUNCHED,
        ) from err


def report(http_addr: str) -> tuple[str, dict[str, Any]]:
    """The JSON report, as text and decoded. Raises as :func:`get`."""
    answer = get(http_addr, "/report", "application/json")
    if answer.status_code != httpx.codes.OK:
        raise NodeUnreachableError(
            f"--http-addr: {http_addr} answered {answer.status_code}; is it a weft node?",
            EXIT_NOT_LAUNCHED,
        )
    decoded: dict[str, Any] = answer.json()
    return answer.text, decoded
