"""Address allocation over HTTP: ``/ip``, ``/ipinfo``, ``/ring`` and ``/peer``, word for word.

A request that waits is withdrawn when its client leaves. What is cancelled otherwise (the container
died, IPAM was shut down) is answered 200 with ``cancelled``, as clients of the original expect.

    400  the request is wrong, or a claim or a release cannot be granted
    503  nothing came within ``timeout`` seconds, or the disk did not take it: try again

Ours: ``timeout=SECONDS`` for what waits, ``force=true`` to take over a peer that is reachable.

Source of truth: ipam specification 11, vectors ``http_api_samples.json``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final

import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from base.errors import (
    AllocationError,
    NoAddressError,
    NotStoredError,
    RequestCancelledError,
)
from control.api.caller import caller_of
from control.api.forms import FormError, fields_of
from control.api.guard import read_body
from control.api.printable import printable
from control.api.routing import Endpoint, route
from control.ipam_service import IpamService
from ipam.address import Cidr, parse_address

TIMEOUT_S_MAX: Final = 24 * 3600.0
_CANCELLED: Final = "cancelled"
_CHUNK: Final = 1000
_JSON: Final = "application/json"


def routes(ipam: IpamService | None, tracker: str = "") -> list[Route]:
    """The routes; without ``ipam`` only those that leaving nodes need, the others are unknown.

    ``tracker`` is the name of what follows the ranges that we own, for ``/ipinfo/tracker``.
    """
    if ipam is None:
        return [
            route("/peer", _nothing(204), "DELETE"),
            route("/peer/{id}", _nothing(200), "DELETE"),
        ]
    pages = _Pages(ipam, tracker)
    return [
        _route("/ip/{id}", pages.allocate, "POST"),
        _route("/ip/{id}", pages.lookup, "GET"),
        _route("/ip/{id}", pages.delete, "DELETE"),
        _route("/ip/{id}/{ip}/{length}", pages.allocate, "POST"),
        _route("/ip/{id}/{ip}/{length}", pages.claim, "PUT"),
        _route("/ip/{id}/{ip}/{length}", pages.lookup, "GET"),
        _route("/ip/{id}/{ip}", pages.free, "DELETE"),
        _route("/ip", pages.owned, "GET"),
        _route("/ipinfo/defaultsubnet", pages.default_subnet, "GET"),
        _route("/ipinfo/tracker", pages.tracker, "GET"),
        _route("/ring", pages.prime, "GET"),
        _route("/peer", pages.leave, "DELETE"),
        _route("/peer/{id}", pages.take_over, "DELETE"),
    ]


class _Pages:
    """One method per route."""

    def __init__(self, ipam: IpamService, tracker: str) -> None:
        self._ipam = ipam
        self._tracker = tracker

    async def allocate(self, request: Request) -> Response:
        form = await _form(request)
        with caller_of(request).while_present():
            found = await self._ipam.allocate(
                request.path_params["id"],
                _subnet(request),
                is_container=form.get("check-alive") == "true",
                timeout_s=_timeout_s(form),
            )
            return _text(str(found))
        return _text(_CANCELLED)

    async def claim(self, request: Request) -> Response:
        form = await _form(request)
        cidr = Cidr.parse(_cidr_text(request))
        try:
            with caller_of(request).while_present():
                await self._ipam.claim(
                    request.path_params["id"],
                    cidr,
                    is_container=form.get("check-alive") == "true",
                    no_error_on_unknown=form.get("noErrorOnUnknown") == "true",
                    timeout_s=_timeout_s(form),
                )
                return Response(status_code=204)
        except (RequestCancelledError, NotStoredError):
            raise
        except AllocationError as err:
            return _text(f"Unable to claim: {printable(str(err))}\n", 400)
        return _text(_CANCELLED)

    async def lookup(self, request: Request) -> Response:
        found = await self._ipam.lookup(request.path_params["id"], _subnet(request))
        return _text(" ".join(map(str, found)))

    async def free(self, request: Request) -> Response:
        addr = parse_address(request.path_params["ip"])
        try:
            await self._ipam.free(request.path_params["id"], addr)
        except NotStoredError:
            raise
        except AllocationError as err:
            return _text(f"Unable to free: {printable(str(err))}\n", 400)
        return Response(status_code=204)

    async def delete(self, request: Request) -> Response:
        await self._ipam.delete(request.path_params["id"])
        return Response(status_code=204)

    async def owned(self, _: Request) -> Response:
        # all at once: the allocator goes on while this is sent
        return StreamingResponse(_owned_json(list(self._ipam.owned())), media_type=_JSON)

    async def default_subnet(self, _: Request) -> Response:
        return _text(str(self._ipam.default_subnet))

    async def tracker(self, _: Request) -> Response:
        return _text(f"{self._tracker}\n")

    async def prime(self, request: Request) -> Response:
        with caller_of(request).while_present(), suppress(RequestCancelledError):
            await self._ipam.prime(_timeout_s(dict(request.query_params)))
        return Response()  # also when we leave, as the original

    async def leave(self, _: Request) -> Response:
        await self._ipam.shutdown()
        return Response(status_code=204)

    async def take_over(self, request: Request) -> Response:
        peer = request.path_params["id"]
        force = request.query_params.get("force") == "true"
        gained = await self._ipam.take_over(peer, force=force)
        return _text(f"{gained} IPs taken over from {printable(peer)}\n")


def _route(path: str, page: Endpoint, method: str) -> Route:
    async def guarded(request: Request) -> Response:
        try:
            return await page(request)
        except RequestCancelledError:
            return _text(_CANCELLED)
        except (NoAddressError, NotStoredError) as err:
            return _text(f"{printable(str(err))}\n", 503)
        except AllocationError as err:
            return _text(f"{printable(str(err))}\n", 400)

    return route(path, guarded, method)


def _nothing(code: int) -> Endpoint:
    async def page(_: Request) -> Response:
        return Response(status_code=code)

    return page


def _cidr_text(request: Request) -> str:
    return f"{request.path_params['ip']}/{request.path_params['length']}"


def _subnet(request: Request) -> Cidr | None:
    return Cidr.parse_subnet(_cidr_text(request)) if "ip" in request.path_params else None


async def _form(request: Request) -> Mapping[str, str]:
    """Parameters of body and query, the body's first."""
    body = b""
    if "content-length" in request.headers or "transfer-encoding" in request.headers:
        body = await read_body(request)
    query = request.scope["query_string"].decode("latin-1")  # request.url costs more than it says
    if not body and not query:
        return {}
    found: dict[str, str] = {}
    for name, value in fields_of(body, query):
        found.setdefault(name, value)
    return found


def _timeout_s(form: Mapping[str, str]) -> float | None:
    text = form.get("timeout")
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= TIMEOUT_S_MAX:  # not a number fails, too
        raise FormError(f"timeout {text!r} is no number of seconds")
    return value


async def _owned_json(owned: list[tuple[str, tuple[Cidr, ...]]]) -> AsyncIterator[str]:
    """In pieces, with room for others between: a full range has a million addresses."""
    for start in range(0, len(owned), _CHUNK):
        records = ",".join(
            json.dumps(
                {"containerid": ident, "addrs": [str(cidr) for cidr in cidrs]},
                separators=(",", ":"),
            )
            for ident, cidrs in owned[start : start + _CHUNK]
        )
        yield f",{records}" if start else f'{{"owned":[{records}'
        await anyio.lowlevel.checkpoint()
    yield "]}\n" if owned else '{"owned":null}\n'


def _text(text: str, code: int = 200) -> Response:
    """Plain text; like the original without a content type when there is none."""
    return PlainTextResponse(text, code) if text else Response(status_code=code)
