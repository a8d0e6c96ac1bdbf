"""What a request over TCP must look like, and how large one may be; middleware in front of the API.

The API has no password and listens on loopback, which every web page in a browser on this host can
reach. So over TCP a request must name an IP address or localhost as its host (a page that rebinds
its own name to 127.0.0.1 cannot), and one that changes something must not come from a page at all
(a form posted across sites carries Origin). What is read from another address of the host, which
every host around may do, is not looked at so. Over a Unix socket the caller must be root, our own
user, or in the file's group, whatever became of the file's mode.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from control.api.caller import caller_in
from control.api.printable import printable

BODY_LEN_MAX: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 10.0
_READING: Final = ("GET", "HEAD", "OPTIONS")


class RefusedError(Exception):
    """A request is not carried out: ``status`` and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware; answers 403 itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http" and (reason := refusal(scope)) is not None:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def refusal(scope: Scope) -> str | None:
    """Why the request is refused, None if it is not; ``scope`` is an ASGI HTTP scope."""
    caller = caller_in(scope)
    if caller is not None and caller.is_unix:
        return None if caller.trusted else "this socket is for root and its group"
    method = scope["method"]
    if method in _READING and not _on_loopback(scope):
        return None  # --status-addr, which monitoring reaches by the host's name
    return tcp_refusal(method, Headers(scope=scope))


def _on_loopback(scope: Scope) -> bool:
    """Whether the connection's end here is loopback; where nothing is known, it is."""
    where, _ = scope.get("server") or ("", None)
    try:
        return ipaddress.ip_address(where).is_loopback
    except ValueError:
        return True


def tcp_refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request over TCP is refused, None if it is not; names in ``headers`` are lower-case."""
    reads = method in _READING
    host = headers.get("host", "127.0.0.1" if reads else "")  # a health check may say HTTP/1.0
    if not is_local_host(host):
        return f'Host "{printable(host)}" is neither an IP address nor localhost'
    if not reads and "origin" in headers:
        return "changes are not taken from web pages (the request has an Origin header)"
    return None


def is_local_host(host: str) -> bool:
    """True if a Host header names an IP address or localhost, with or without port."""
    name, bracket, port = host.rpartition("]")
    if bracket:
        name, port = name.removeprefix("["), port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_body(request: Request) -> bytes:
    """The request's body.

    Raises:
        RefusedError: more than BODY_LEN_MAX bytes (413), or not there within BODY_TIMEOUT_S (408).
    """
    too_large = RefusedError(413, f"the request is larger than {BODY_LEN_MAX} bytes")
    length = request.headers.get("content-length", "0")
    if len(length) > len(str(BODY_LEN_MAX)) or (length.isdecimal() and int(length) > BODY_LEN_MAX):
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LEN_MAX:
                    raise too_large
    except (TimeoutError, ClientDisconnect) as err:
        raise RefusedError(408, "the request did not come to its end") from err
    return bytes(body)
