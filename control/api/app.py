"""The HTTP API as a Starlette application. Source of truth: node specification 9, its vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from control.api import report, status
from control.node import NodeView

#: Takes the number of MAC addresses wanted at most; never fails: without a router it says so.
Observe = Callable[[int], Awaitable[NodeView]]

MACS_MAX = 100_000


def build_app(observe: Observe) -> Starlette:
    """The application; ``observe`` takes a fresh picture of the node for each request."""

    def text_page(render: Callable[[NodeView], str]) -> Callable[[Request], Awaitable[Response]]:
        async def page(_: Request) -> Response:
            view = await observe(0)
            return PlainTextResponse(render(view), 200 if view.ready is not None else 503)

        return page

    async def report_page(request: Request) -> Response:
        if "format" in request.query_params:
            return PlainTextResponse(
                "error: format templates are not supported; ask with Accept: application/json\n",
                400,
            )
        if "application/json" not in request.headers.get("accept", ""):
            return PlainTextResponse("error: must supply one format parameter\n", 400)
        body = msgspec.json.encode(report.build(await observe(MACS_MAX)))
        return Response(msgspec.json.format(body, indent=4), media_type="application/json")

    async def not_found(_: Request, __: Exception) -> Response:
        return PlainTextResponse("404 page not found\n", 404)

    return Starlette(
        routes=[
            Route("/status", text_page(status.summary)),
            Route("/status/connections", text_page(status.connections)),
            Route("/status/peers", text_page(status.peers)),
            Route("/status/targets", text_page(status.targets)),
            Route("/report", report_page),
        ],
        exception_handlers={404: not_found},
    )
