"""A short way for the one request that comes in crowds: ``POST /ip/{id}`` and nothing more to it.

When a node starts, every pod on it wants its address at once. The way through the framework costs
more than the allocation itself (measured: 60 of 120 us), so the plain form of the request, over the
Unix socket and without parameters, is answered from here. The answers are the same, those with an
error too: whatever is not plain success takes the long way, where asking again gives the same.

Source of truth: :mod:`control.api.ipam`.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from base.errors import AllocationError
from control.api.caller import caller_in
from control.ipam_service import IpamService

_PREFIX: Final = "/ip/"
_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding")


class Express:
    """ASGI application in front of ``app``, which serves all else."""

    def __init__(self, app: ASGIApp, ipam: IpamService) -> None:
        self._app = app
        self._ipam = ipam

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or scope["query_string"]
            or not (path := scope["path"]).startswith(_PREFIX)
            or "/" in (ident := path[len(_PREFIX) :])
            or any(name in _BODY_HEADERS for name, _ in scope["headers"])
            or (caller := caller_in(scope)) is None
            or not caller.trusted
        ):
            await self._app(scope, receive, send)
            return
        try:
            with caller.while_present():
                body = str(await self._ipam.allocate(ident)).encode()
                await send(
                    {
                        "type": "http.response.start",
                        "status": 200,
                        "headers": [
                            (b"content-length", str(len(body)).encode()),
                            (b"content-type", b"text/plain; charset=utf-8"),
                        ],
                    }
                )
                await send({"type": "http.response.body", "body": body})
        except AllocationError:
            await self._app(scope, receive, send)
