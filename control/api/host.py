"""Addresses of the host over HTTP: ``/expose``.

    POST   /expose/{ip}/{len}[?skipNAT=true]   expose this address; 204, as the original
    DELETE /expose/{ip}/{len}                  hide it; 204, also if it was not exposed
    POST   /expose   addr=SPEC… skipNAT=true fqdn=NAME   allocate and expose; ``a.b.c.d/len …``
    DELETE /expose   addr=SPEC…                hide and give back; what was hidden
    GET    /expose                             JSON list of what is exposed

SPEC: see :mod:`control.host.address_spec`; none: the default subnet. A POST that waits for
allocation is withdrawn when its client leaves. 400: the request is wrong; 503: the host or the
allocator cannot do it now.

Source of truth: node specification 4, 9; vectors ``http_api_samples.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface
from typing import Final
from urllib.parse import parse_qsl

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from base.errors import (
    AllocationError,
    ClaimConflictError,
    ConfigError,
    OutOfBoundsError,
    PlatformError,
)
from control.api.caller import caller_of
from control.api.forms import FIELDS_MAX, FormError
from control.api.guard import read_body
from control.api.printable import json_text, printable
from control.api.routing import Endpoint, route
from control.go_bool import parse_bool
from control.host.address_spec import parse_cidr, parse_specs
from control.host.service import HostService
from control.node import HostView
from ipam.address import AddressError, Cidr

_JSON: Final = "application/json"
_FIELDS: Final = ("addr", "skipNAT", "fqdn")
_CLIENT_GONE: Final = 499


def routes(host: HostService | None) -> list[Route]:
    """The routes; none without a ``host``, so that the paths are unknown."""
    if host is None:
        return []
    pages = _Pages(host)
    return [
        _route("/expose/{ip}/{length}", pages.expose_address, "POST"),
        _route("/expose/{ip}/{length}", pages.hide_address, "DELETE"),
        _route("/expose", pages.expose, "POST"),
        _route("/expose", pages.hide, "DELETE"),
        _route("/expose", pages.exposed, "GET"),
    ]


def metrics(view: HostView) -> Iterator[Metric]:
    """Counters of the host's side."""
    for name, documentation in (
        ("reconciles", "Looks at the packet filter."),
        ("restored", "Times the packet filter was put back."),
        ("failures", "Transactions and listings that failed."),
        ("bridge_changes", "Settings of the bridge that were set."),
    ):
        yield CounterMetricFamily(f"weft_host_{name}", documentation, value=view.counters[name])
    yield GaugeMetricFamily(
        "weft_exposed_addresses", "Addresses of the bridge.", value=len(view.exposed)
    )


class _Pages:
    """One method per route."""

    def __init__(self, host: HostService) -> None:
        self._host = host

    async def expose_address(self, request: Request) -> Response:
        """One fixed address, of which no record is made."""
        cidr = _cidr_of(request)
        form = await _form(request)
        await self._host.expose_address(cidr, masquerade=not form.skip_nat)
        return Response(status_code=204)

    async def hide_address(self, request: Request) -> Response:
        """The reverse."""
        await self._host.hide_address(_cidr_of(request))
        return Response(status_code=204)

    async def expose(self, request: Request) -> Response:
        """Addresses by their specs."""
        form = await _form(request)
        specs = parse_specs(form.addresses)
        done: list[IPv4Interface] | None = None
        with caller_of(request).while_present():
            done = await self._host.expose(specs, masquerade=not form.skip_nat)
        return Response(status_code=_CLIENT_GONE) if done is None else _addresses(request, done)

    async def hide(self, request: Request) -> Response:
        """The reverse."""
        form = await _form(request)
        return _addresses(request, await self._host.hide(parse_specs(form.addresses)))

    async def exposed(self, _: Request) -> Response:
        """What is exposed."""
        found = [
            {"Address": str(each.address), "Masquerade": each.masquerade}
            for each in self._host.exposed
        ]
        return Response(json_text(found, indent=4), media_type=_JSON)


class _Form:
    """Fields of body and query; the first of those that count once."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self.addresses: list[str] = []
        self.skip_nat = False
        for name, value in fields:
            if name not in _FIELDS:
                raise FormError(f"unknown field {name!r}; known here: {', '.join(_FIELDS)}")
            if name == "addr":
                self.addresses.append(value.strip())
            elif name == "skipNAT":
                self.skip_nat = self.skip_nat or _flag(name, value)


def _flag(name: str, value: str) -> bool:
    """The original's words when it is none of them. An empty one is as if there were none."""
    said = parse_bool(value) if value else False
    if said is not None:
        return said
    quoted = json.dumps(value)
    raise FormError(
        f"unable to parse {name} option: strconv.ParseBool: parsing {quoted}: invalid syntax"
    )


async def _form(request: Request) -> _Form:
    body = (await read_body(request)).decode("utf-8", "replace")
    fields: list[tuple[str, str]] = []
    for text in (body, request.url.query):
        try:
            fields += parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
        except ValueError as err:
            raise FormError(f"more than {FIELDS_MAX} fields") from err
    return _Form(fields)


def _cidr_of(request: Request) -> IPv4Interface:
    text = f"{request.path_params['ip']}/{request.path_params['length']}"
    try:
        Cidr.parse(text)
    except AddressError as err:
        raise ConfigError(f"unable to parse ip addr: {err}") from err
    return parse_cidr(text)


def _addresses(request: Request, found: list[IPv4Interface]) -> Response:
    texts = [str(each) for each in found]
    if _JSON in request.headers.get("accept", ""):
        return Response(json.dumps(texts), media_type=_JSON)
    return PlainTextResponse(" ".join(texts))


def _route(path: str, page: Endpoint, method: str) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return await page(request)
        except (ClaimConflictError, OutOfBoundsError) as err:
            return _refusal(err, 400)
        except (AllocationError, PlatformError) as err:
            return _refusal(err, 503)

    return route(path, endpoint, method)


def _refusal(err: Exception, code: int) -> Response:
    return PlainTextResponse(f"{printable(str(err))}\n", code)
