"""``weft launch``: control and router as two children, kept alive, stopped in order.

Start: control first; the router only when control is ready, so that a bad peers file or option
ends everything before the host has been touched. READY goes to the service manager when control
says that the router forwards.

Deaths: a child that exits with status 1 before the node was ever ready has told the user why: stop
and exit 1. Any other death is answered by a restart with back-off (control.backoff). The other
child is left alone: a router without control forwards on, a control without router waits.

Stop (SIGTERM, SIGINT): router first, then control. The router then never sees its link break, and
control can tell what happened to the end. SIGHUP goes to control.

Watchdog: keep-alives flow only while both children are alive.

Children speak to us by sd_notify on a socket of our own; what they say counts only when the kernel
vouches for their pid. Only processes started here are ever signalled.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from base.clock import Clock, MonotonicClock
from base.log import kv
from base.sdnotify import Notifier, NotifyReceiver, watchdog_interval_s
from control.backoff import FIRST_DELAY_S, Backoff
from control.child import Child

EXIT_USER_ERROR: Final = 1
STOP_GRACE_S: Final = 5.0
_ROUTER_VARIABLE: Final = "X_WEFT_ROUTER"
_CONTROL_ONLY: Final = ("WEAVE_PASSWORD", "CREDENTIALS_DIRECTORY")
_MANAGER_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Slot:
    """One of the two places: what to run there and who runs there now."""

    name: str
    argv: Sequence[str]
    child: Child | None = None
    listens: bool = False  # this child said READY, so it also catches its signals
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Runs two commands until told to stop. One use per object."""

    def __init__(
        self,
        control_argv: Sequence[str],
        router_argv: Sequence[str],
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._control = _Slot("control", control_argv)
        self._router = _Slot("router", router_argv)
        self._environ = dict(os.environ if environ is None else environ)
        self._clock: Clock = clock or MonotonicClock()
        self._notifier = Notifier(self._environ)
        self._watchdog_s = watchdog_interval_s(self._environ)
        self._control_ready = anyio.Event()
        self._node_was_ready = False
        self._reload_wanted = False
        self._exit_code = 0
        self._scope: anyio.CancelScope

    async def run(self) -> int:
        """Supervise; the exit code: 0 after a stop by signal, 1 when a child refused to start."""
        self._scope = anyio.CancelScope()
        with (
            anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
            NotifyReceiver() as receiver,
        ):
            environ = {k: v for k, v in self._environ.items() if k not in _MANAGER_VARIABLES}
            environ["NOTIFY_SOCKET"] = receiver.address
            environ["PYTHONPATH"] = _with_our_code(environ.get("PYTHONPATH", ""))
            try:
                with self._scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._listen, receiver)
                        tasks.start_soon(self._keep_alive)
                        tasks.start_soon(self._keep, self._control, environ)
                        tasks.start_soon(self._keep_router, environ)
                        async for signum in signals:
                            if signum != signal.SIGHUP:
                                log.debug("stopping", extra=kv(signal=signum.name))
                                break
                            self._reload()
                        self._scope.cancel()
            finally:
                self._notifier.stopping()
                with anyio.CancelScope(shield=True):
                    await self._stop_children()
        return self._exit_code

    async def _keep_router(self, environ: Mapping[str, str]) -> None:
        await self._control_ready.wait()
        # keys come over the link; the password is none of its business
        public = {key: value for key, value in environ.items() if key not in _CONTROL_ONLY}
        await self._keep(self._router, public)

    async def _keep(self, slot: _Slot, environ: Mapping[str, str]) -> None:
        """Run the slot's command again and again, until cancelled or it refuses to start."""
        while True:
            started_s = self._clock.now()
            slot.listens = False
            try:
                slot.child = Child.start(slot.argv, environ)
            except OSError as err:
                log.error("child cannot be started", extra=kv(child=slot.name, err=err))
                await anyio.sleep(max(slot.backoff.died(0), FIRST_DELAY_S))
                continue
            log.debug("child started", extra=kv(child=slot.name, pid=slot.child.pid))
            status = await slot.child.wait()
            lived_s = self._clock.now() - started_s
            if status == EXIT_USER_ERROR and not self._node_was_ready:
                self._exit_code = EXIT_USER_ERROR
                self._scope.cancel()
                return
            delay_s = slot.backoff.died(lived_s)
            log.warning(
                "child died, it is started again",
                extra=kv(
                    child=slot.name,
                    pid=slot.child.pid,
                    reason=_describe(status),
                    age_s=round(lived_s, 1),
                    delay_s=delay_s,
                ),
            )
            self._notifier.status(f"{slot.name} died ({_describe(status)}), starting it again")
            await anyio.sleep(delay_s)

    async def _stop_children(self) -> None:
        for slot in (self._router, self._control):
            if slot.child is not None and slot.child.alive:
                status = await slot.child.stop(STOP_GRACE_S)
                if status == -signal.SIGKILL:
                    log.warning("child had to be killed", extra=kv(child=slot.name))

    # What the children say -----------------------------------------------------------------------

    async def _listen(self, receiver: NotifyReceiver) -> None:
        while True:
            await anyio.wait_readable(receiver.fileno())
            while (message := receiver.receive()) is not None:
                pid, variables = message
                child = self._control.child
                if child is not None and child.pid == pid:
                    self._handle_control(variables)

    def _handle_control(self, variables: Mapping[str, str]) -> None:
        if variables.get("READY") == "1":
            self._control.listens = True
            self._control_ready.set()
            if self._reload_wanted:
                self._reload()
            elif self._node_was_ready:
                self._notifier.send(READY=1)
        if variables.get(_ROUTER_VARIABLE) == "ready" and not self._node_was_ready:
            self._node_was_ready = True
            log.info("node ready", extra=kv(pid=os.getpid()))
            self._notifier.send(READY=1)
        if "STATUS" in variables:
            self._notifier.status(variables["STATUS"])

    def _reload(self) -> None:
        """Pass SIGHUP on; before control can take it (it would die of it), remember."""
        slot = self._control
        self._reload_wanted = slot.child is None or not slot.listens
        if slot.child is not None and slot.listens:
            self._notifier.reloading()
            slot.child.signal(signal.SIGHUP)

    async def _keep_alive(self) -> None:
        while self._watchdog_s is not None:
            slots = (self._control, self._router)
            if all(slot.child is not None and slot.child.alive for slot in slots):
                self._notifier.keep_alive()
            await anyio.sleep(self._watchdog_s / 2)


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _with_our_code(python_path: str) -> str:
    """PYTHONPATH by which children find the code that runs here, wherever it was started."""
    ours = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join([ours, *(part for part in python_path.split(os.pathsep) if part)])
