"""Which event loop runs which pipeline.

``one``  both on the main loop: lowest latency, since whoever has just sent is still awake for the
         answer, and one core at most;
``two``  ingress on a loop and thread of its own: both cores work, an answer may need a wake-up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from base.log import kv
from router.pipeline import CaptureIntake, DatagramIntake, Pipeline, Pump

log = logging.getLogger(__name__)

BACKEND: dict[str, Any] = {"backend": "asyncio", "backend_options": {"use_uvloop": True}}


class IngressThread:
    """A thread with an event loop of its own for the ingress pipeline."""

    def __init__(self, pipeline: Pipeline, pump: Pump, on_failure: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._pump = pump
        self._on_failure = on_failure
        self._stop: Callable[[], object] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="ingress", daemon=True)

    def start(self) -> None:
        """Returns once the loop runs."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """End the loop and wait for it."""
        if self._stop is not None:
            self._stop()
        self._thread.join(timeout=2.0)

    def _main(self) -> None:
        try:
            anyio.run(self._serve, **BACKEND)
        except Exception as err:  # the main loop must learn of it, whatever it is
            log.exception("ingress loop failed", extra=kv(dir="in"))
            self._on_failure(str(err))
        finally:
            self._started.set()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        self._on_failure(str(context.get("exception") or context.get("message")))

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            loop.set_exception_handler(self._callback_failed)
            self._stop = partial(loop.call_soon_threadsafe, scope.cancel)
            self._pump.start()
            self._started.set()
            try:
                await self._pipeline.serve()
            finally:
                self._pump.stop()


def split(
    loops: str, capture: CaptureIntake, datagrams: DatagramIntake, spin_us: int
) -> tuple[Pump, Pump | None]:
    """The pump of the main loop, and that of the ingress thread if there is one."""
    if loops == "one":
        return Pump([capture, datagrams], spin_us), None
    return Pump([capture], spin_us), Pump([datagrams], spin_us)
