"""The HTTP API as a Starlette application. Source of truth: node specification 9, its vectors.

Errors are one line of plain text; nothing that a client sends makes a traceback. Who may ask over
TCP: :mod:`control.api.guard`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from base.errors import ConfigError
from control.api import metrics, report, status
from control.api.commands import Commands
from control.api.forms import FormError, PeersForm, parse_peers
from control.api.guard import Guard, RefusedError, read_body
from control.api.printable import json_text, printable
from control.api.template import RenderError, Template, TemplateError
from control.node import NodeView

#: Takes the number of MAC addresses wanted at most; never fails: without a router it says so.
Observe = Callable[[int], Awaitable[NodeView]]

MACS_MAX: Final = 100_000
_JSON: Final = "application/json"
_FIXED: Final = "peers are fixed by the peers file (--static); change it and send SIGHUP"

_Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(observe: Observe, commands: Commands | None = None) -> Starlette:
    """The application; ``observe`` takes a fresh picture of the node for each request.

    ``commands`` None: peers can't be changed, which requests are told.
    """
    app = Starlette(
        routes=[
            Route("/status", _status_page(observe, status.summary, report.summary)),
            Route(
                "/status/connections",
                _status_page(observe, status.connections, report.connections),
            ),
            Route("/status/peers", _status_page(observe, status.peers, report.peers)),
            Route("/status/targets", _status_page(observe, status.targets, report.targets)),
            Route("/report", _report_page(observe)),
            Route("/metrics", _metrics_page(observe)),
            Route("/connect", _connect(commands), methods=["POST"]),
            Route("/forget", _forget(commands), methods=["POST"]),
        ],
        middleware=[Middleware(Guard)],
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


def _status_page(
    observe: Observe, text: Callable[[NodeView], str], records: Callable[[NodeView], Any]
) -> _Endpoint:
    async def page(request: Request) -> Response:
        view = await observe(0)
        code = 200 if view.ready is not None else 503
        if _wants_json(request):
            return Response(json_text(records(view), indent=4), code, media_type=_JSON)
        return _text(text(view), code)

    return page


def _report_page(observe: Observe) -> _Endpoint:
    async def page(request: Request) -> Response:
        if _wants_json(request):
            body = json_text(report.build(await observe(MACS_MAX)), indent=4)
            return Response(body, media_type=_JSON)
        formats = request.query_params.getlist("format")
        if len(formats) != 1:
            return _text("error: must supply one format parameter\n", 400)
        try:
            template = Template(formats[0])
            data = report.build(await observe(MACS_MAX))
            return _text(await anyio.to_thread.run_sync(template.render, data))
        except TemplateError as err:
            return _text(f"{err}\n", 400)
        except RenderError:
            return _text("error during template execution\n", 500)

    return page


def _metrics_page(observe: Observe) -> _Endpoint:
    async def page(_: Request) -> Response:
        body = metrics.exposition(await observe(0))
        return Response(body, headers={"Content-Type": metrics.CONTENT_TYPE})

    return page


# Changes ----------------------------------------------------------------------------------------


def _connect(commands: Commands | None) -> _Endpoint:
    async def change(request: Request) -> Response:
        form = await _form(request)
        errors = [_FIXED]
        if commands is not None:
            errors = await commands.connect(form.peers, replace=form.replace)
        return _text("".join(f"{printable(error)}\n" for error in errors), 400 if errors else 200)

    return change


def _forget(commands: Commands | None) -> _Endpoint:
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
    return _JSON in request.headers.get("accept", "")


def _text(text: str, code: int = 200) -> Response:
    """Plain text; like the original without a content type when there is none."""
    return PlainTextResponse(text, code) if text else Response(status_code=code)


async def _not_found(_: Request, __: Exception) -> Response:
    return _text("404 page not found\n", 404)


async def _not_allowed(_: Request, error: Exception) -> Response:
    return Response(status_code=405, headers=getattr(error, "headers", None))


async def _refused(_: Request, error: Exception) -> Response:
    code = error.status if isinstance(error, RefusedError) else 400
    # what is left of the body is not read
    return PlainTextResponse(f"{error}\n", code, headers={"Connection": "close"})


async def _bad_request(_: Request, error: Exception) -> Response:
    return _text(f"{printable(str(error))}\n", 400)
