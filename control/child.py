"""One child process of the supervisor: started, watched, ended; never survives its parent.

The child gets its own process group, so that a Ctrl-C in the terminal reaches only the supervisor,
which then stops its children in order. The kernel kills the child when the supervisor dies
(PR_SET_PDEATHSIG); standard input is empty, output and errors are shared.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import anyio

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Child:
    """A running process. Make one with :meth:`start`; await :meth:`wait` before letting it go."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    def start(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Child:
        """Start ``argv``. Call from the main thread: the kernel ties the child to the thread.

        Raises:
            OSError: it cannot be executed.
        """
        parent = os.getpid()

        def tie_to_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)

        # preexec_fn is safe here: the supervisor has one thread.
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            env=dict(environ),
            process_group=0,
            preexec_fn=tie_to_parent,  # noqa: PLW1509
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it has been reaped."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end; exit status, or minus the number of the signal that killed it.

        May be cancelled and called again; one task at a time.
        """
        while self._process.returncode is None:
            await anyio.wait_readable(self._pidfd)
            if self._process.poll() is not None:
                os.close(self._pidfd)
        return self._process.returncode

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._process.returncode is None:
            signal.pidfd_send_signal(self._pidfd, signum)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL when it is still there after ``grace_s``; returns as wait()."""
        self.signal(signal.SIGTERM)
        with anyio.move_on_after(grace_s):
            await self.wait()
        self.signal(signal.SIGKILL)
        return await self.wait()
