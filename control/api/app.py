"""The HTTP API as a Starlette application. Source of truth: node specification 9, its vectors.

Errors are one line of plain text; nothing that a client sends makes a traceback. Who may ask over
TCP: :mod:`control.api.guard`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from base.errors import ConfigError
from control.api import attach as attach_routes
from control.api import host as host_routes
from control.api import ipam as ipam_routes
from control.api import metrics, report, status
from control.api.commands import Commands
from control.api.express import Express
from control.api.forms import FormError, PeersForm, parse_peers
from control.api.guard import Guard, RefusedError, read_body
from control.api.printable import json_text, printable
from control.api.routing import Endpoint, route
from control.api.template import RenderError, Template, TemplateError
from control.host.service import HostService
from control.ipam_service import IpamService
from control.node import NodeView

#: Takes the number of MAC addresses wanted at most; never fails: without a router it says so.
Observe = Callable[[int], Awaitable[NodeView]]

MACS_MAX: Final = 100_000
_JSON: Final = "application/json"
_FIXED: Final = "peers are fixed by the peers file (--static); change it and send SIGHUP"

Text = Callable[[NodeView], str | None]
Records = Callable[[NodeView], Any]


@dataclass(slots=True, frozen=True)
class Tenants:
    """What the API serves beside status: parts of a node that may be absent.

    ``commands`` None: peers can't be changed, which requests are told. ``ipam`` None: addresses
    are not allocated, and their paths unknown. ``tracker``: see :func:`control.api.ipam.routes`.
    ``containers`` None: none are attached. ``host`` None: nothing on this host can be exposed.
    """

    commands: Commands | None = None
    ipam: IpamService | None = None
    tracker: str = ""
    containers: attach_routes.ContainerHost | None = None
    host: HostService | None = None


def build_app(observe: Observe, tenants: Tenants) -> ASGIApp:
    """The application; ``observe`` takes a fresh picture of the node for each request."""
    commands = tenants.commands
    app = _application(
        [
            *ipam_routes.routes(tenants.ipam, tenants.tracker),
            *attach_routes.routes(tenants.containers),
            *host_routes.routes(tenants.host),
            *_status_routes(observe),
            route("/metrics", _metrics_page(observe)),
            route("/connect", _connect(commands), "POST"),
            route("/forget", _forget(commands), "POST"),
        ]
    )
    return app if tenants.ipam is None else Express(app, tenants.ipam)


def build_status_app(observe: Observe) -> Starlette:
    """What ``--status-addr`` serves: nothing that changes anything."""
    return _application([*_status_routes(observe), route("/metrics", _metrics_page(observe))])


def build_metrics_app(observe: Observe) -> Starlette:
    """What ``--metrics-addr`` serves."""
    return _application([route("/metrics", _metrics_page(observe))], guarded=False)


def _status_routes(observe: Observe) -> list[Route]:
    pages: list[tuple[str, Text, Records]] = [
        ("/status", status.summary, report.summary),
        ("/status/connections", status.connections, report.connections),
        ("/status/peers", status.peers, report.peers),
        ("/status/targets", status.targets, report.targets),
        ("/status/ipam", status.ipam, report.ipam_shares),
    ]
    return [
        *(route(path, _status_page(observe, text, records)) for path, text, records in pages),
        route("/report", _report_page(observe)),
    ]


def _application(routes: list[Route], *, guarded: bool = True) -> Starlette:
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard)] if guarded else [],
        exception_handlers={
            404: _not_found,
            405: _not_allowed,
            RefusedError: _refused,
            FormError: _bad_request,
            ConfigError: _bad_request,
        },
    )
    app.router.redirect_slashes = False  # "/status/" is no page, as with Weave
    return app


# Pages ------------------------------------------------------------------------------------------


def _status_page(observe: Observe, text: Text, records: Records) -> Endpoint:
    """The page as text or JSON; one that there is nothing of (None) is unknown."""

    async def page(request: Request) -> Response:
        view = await observe(0)
        code = 200 if view.is_ready else 503
        if _wants_json(request) and (found := records(view)) is not None:
            return Response(json_text(found, indent=4), code, media_type=_JSON)
        body = text(view)
        return await _not_found(request, None) if body is None else _text(body, code)

    return page


def _report_page(observe: Observe) -> Endpoint:
    async def page(request: Request) -> Response:
        if _wants_json(request):
            body = json_text(report.build(await observe(MACS_MAX)), indent=4)
            return Response(body, media_type=_JSON)
        formats = request.query_params.getlist("format")
        if len(formats) != 1:
            return _text("error: must supply one format parameter\n", 400)
        try:
            template = Template(formats[0])
            data = report.for_template(await observe(MACS_MAX))
            return _text(await anyio.to_thread.run_sync(template.render, data))
        except TemplateError as err:
            return _text(f"{err}\n", 400)
        except RenderError:
            return _text("error during template execution\n", 500)

    return page


def _metrics_page(observe: Observe) -> Endpoint:
    async def page(_: Request) -> Response:
        body = metrics.exposition(await observe(0))
        return Response(body, headers={"Content-Type": metrics.CONTENT_TYPE})

    return page


# Changes ----------------------------------------------------------------------------------------


def _connect(commands: Commands | None) -> Endpoint:
    async def change(request: Request) -> Response:
        form = await _form(request)
        errors = [_FIXED]
        if commands is not None:
            errors = await commands.connect(form.peers, replace=form.replace)
        return _text("".join(f"{printable(error)}\n" for error in errors), 400 if errors else 200)

    return change


def _forget(commands: Commands | None) -> Endpoint:
    async def change(request: Request) -> Response:
        form = await _form(request)
        if commands is None:
            return _text(f"{_FIXED}\n", 400)
        await commands.forget(form.peers)
        return Response()

    return change


async def _form(request: Request) -> PeersForm:
    return parse_peers(await read_body(request), request.url.query)


# Answers ----------------------------------------------------------------------------------------


def _wants_json(request: Request) -> bool:
    return any(_JSON in each for each in request.headers.getlist("accept"))


def _text(text: str, code: int = 200) -> Response:
    """Plain text; like the original without a content type when there is none."""
    return PlainTextResponse(text, code) if text else Response(status_code=code)


async def _not_found(request: Request, _: Exception | None) -> Response:
    path = request.scope["path"]
    if (
        path.startswith("/") and (clean := _cleaned(path)) != path
    ):  # as the original, whatever is there
        query = request.url.query
        where = quote(clean) + (f"?{query}" if query else "")
        body = f'<a href="{escape(where)}">Moved Permanently</a>.\n\n'
        return Response(
            body if request.method == "GET" else None,
            301,
            headers={"Location": where},
            media_type="text/html" if request.method in ("GET", "HEAD") else None,
        )
    return _text("404 page not found\n", 404)


def _cleaned(path: str) -> str:
    """``path`` without doubled slashes and steps such as ``..``; a slash at its end stays."""
    clean = posixpath.normpath(f"/{path.lstrip('/')}")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


async def _not_allowed(_: Request, __: Exception) -> Response:
    return Response(status_code=405)  # one route knows only its own method, so no Allow


async def _refused(_: Request, error: Exception) -> Response:
    code = error.status if isinstance(error, RefusedError) else 400
    # what is left of the body is not read
    return PlainTextResponse(f"{error}\n", code, headers={"Connection": "close"})


async def _bad_request(_: Request, error: Exception) -> Response:
    return _text(f"{printable(str(error))}\n", 400)
