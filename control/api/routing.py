"""Routes as the original has them: one method each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]


def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    """A route that knows ``method`` alone: no HEAD beside GET."""
    made = Route(path, endpoint, methods=[method])
    made.methods = {method}
    return made
