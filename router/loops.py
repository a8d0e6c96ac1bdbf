"""Which event loop runs which pipeline.

``one``   both on the main loop: lowest latency, since whoever has just sent is still awake for the
          answer, and one core at most;
``two``   ingress on a loop and thread of its own: both cores work, an answer may need a wake-up;
``auto``  one while there is little to do, two under load. Each loop has an ingress pipeline of its
          own, and the right to read the socket goes from one to the other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio

from base.log import kv
from router.intake import Intake
from router.pipeline import Pipeline
from router.pump import Pump

log = logging.getLogger(__name__)

BACKEND: dict[str, Any] = {"backend": "asyncio", "backend_options": {"use_uvloop": True}}


class IngressThread:
    """A thread with an event loop of its own for the ingress pipeline."""

    def __init__(self, pipeline: Pipeline, pump: Pump, on_failure: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._pump = pump
        self._on_failure = on_failure
        self._stop: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="ingress", daemon=True)

    def start(self) -> None:
        """Returns once the loop runs."""
        self._thread.start()
        self._started.wait()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Its loop, once started."""
        return self._loop

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
        loop = self._loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            loop.set_exception_handler(self._callback_failed)
            self._stop = partial(loop.call_soon_threadsafe, scope.cancel)
            self._pump.start()
            self._started.set()
            try:
                await self._pipeline.serve()
            finally:
                self._pump.stop()


class Balancer:
    """Decides for ``auto`` who reads the socket: the main loop, under load the ingress thread."""

    #: Share of time at work above which the main loop wants help.
    BUSY: Final = 0.5
    #: The thread gives the socket back after a pause as long as this.
    IDLE_S: Final = 0.005

    def __init__(
        self, main: Pump, main_intake: Intake, thread: Pump, thread_intake: Intake
    ) -> None:
        self._main = main
        self._main_intake = main_intake
        self._thread = thread
        self._thread_intake = thread_intake
        self._loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop] | None = None
        self._helped = False
        thread.pause(thread_intake)

    def start(self, ingress_loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch the load. Called on the main loop with the thread's loop running."""
        self._loops = (asyncio.get_running_loop(), ingress_loop)
        self._main.on_turns = self._after_main
        self._thread.on_turns = self._after_thread

    def _after_main(self, intake: Intake, gap_s: float) -> None:  # noqa: ARG002
        if self._helped or self._main.load < self.BUSY or self._loops is None:
            return
        if self._main_intake.pool.free < self._main_intake.pool.size:
            return  # datagrams are still under way here: their order would be lost
        self._helped = True
        self._main.pause(self._main_intake)
        self._loops[1].call_soon_threadsafe(self._thread.resume, self._thread_intake)

    def _after_thread(self, intake: Intake, gap_s: float) -> None:  # noqa: ARG002
        if gap_s < self.IDLE_S or self._loops is None:
            return
        if self._thread_intake.pool.free < self._thread_intake.pool.size:
            return
        self._thread.pause(self._thread_intake)
        self._loops[0].call_soon_threadsafe(self._back)

    def _back(self) -> None:
        self._helped = False
        self._main.load = 0.0
        self._main.resume(self._main_intake)
