"""uvicorn without its habits: no signal handlers, no ten wake-ups a second, stopped by a call."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import anyio
import uvicorn
from starlette.types import ASGIApp

from control.api.caller import CallerProtocol

_GRACE_S: Final = 1


class _QuietServer(uvicorn.Server):
    """Leaves signals to the daemon and sleeps until told to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop_requested = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stop_requested.wait()


class ApiServer:
    """Serves an application on listening sockets; must run on asyncio."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            http=CallerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _QuietServer(config)

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve until :meth:`stop`; then let running requests end, and close ``sockets``."""
        await self._server.serve(sockets=sockets)

    def stop(self) -> None:
        """Ask :meth:`serve` to return, within about a second."""
        self._server.should_exit = True
        self._server.stop_requested.set()
