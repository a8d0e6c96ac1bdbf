"""Processes inside lab namespaces: bounded runs, and long-lived ones.

Output goes to memory files (memfd), not pipes: no reader task, no full pipe that stalls a program,
no file to clean up. Waiting is on a pidfd, so it cancels cleanly and costs no polling. Each process
leads its own session and process group, so a Ctrl-C at the terminal reaches only the lab.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from base.errors import WeftError
from lab.namespaces import Namespace, Namespaces


class CommandError(WeftError):
    """A program in the lab failed or took too long; the message holds what it printed."""


@dataclass(slots=True, frozen=True)
class Completed:
    """Result of a bounded run; ``returncode`` is negative for a signal, as subprocess has it."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Process:
    """One running program and its group; owned by who started it, dead with the lab at the latest.

    Raises:
        PlatformError: the program cannot be started.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        namespace: Namespace,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self._where = namespace.name
        self._out = os.memfd_create("lab-stdout")
        self._err = os.memfd_create("lab-stderr")
        source = os.memfd_create("lab-stdin")
        try:
            os.write(source, stdin)
            os.lseek(source, 0, os.SEEK_SET)
            self._popen = namespaces.popen(
                namespace, argv, stdin=source, stdout=self._out, stderr=self._err, env=env
            )
        except BaseException:
            os.close(self._out)
            os.close(self._err)
            self._out = self._err = -1
            raise
        finally:
            os.close(source)

    @property
    def pid(self) -> int:
        """Process id as this process sees it (inside the lab it has another)."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, None while it runs; negative for a signal."""
        return self._popen.poll()

    def stdout(self) -> str:
        """All it printed so far."""
        return _text(self._out)

    def stderr(self) -> str:
        """All it complained of so far."""
        return _text(self._err)

    async def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises:
            TimeoutError: still running after ``timeout_s``.
        """
        if self._popen.poll() is None:
            pidfd = os.pidfd_open(self._popen.pid)
            try:
                with anyio.fail_after(timeout_s):
                    await anyio.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return self._popen.wait()

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the process alone; nothing happens if it has ended."""
        self._popen.send_signal(signal_number)

    def kill_group(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the process and its children that have not left its session."""
        if self._popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal_number)

    async def stop(self, signal_number: int = signal.SIGTERM, timeout_s: float = 5.0) -> int:
        """Ask for the end with ``signal_number``, insist with SIGKILL, return the exit status."""
        self.kill(signal_number)
        try:
            return await self.wait(timeout_s)
        except TimeoutError:
            self.kill_group()
            return await self.wait()

    def completed(self) -> Completed:
        """Result after the end."""
        return Completed(self.argv, self._popen.wait(), self.stdout(), self.stderr())

    def describe(self) -> str:
        """One line for error messages: command, status, and the last of what it said."""
        said = " ".join((self.stderr() or self.stdout()).split())[-600:]
        status = self.returncode
        return f"{self._where}: {shlex.join(self.argv)} → {status}: {said or 'no output'}"

    def close(self) -> None:
        """Kill the group if it runs and drop the captured output."""
        self.kill_group()
        self._popen.wait()
        for fd in (self._out, self._err):
            if fd >= 0:
                os.close(fd)
        self._out = self._err = -1


def _text(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0).decode(errors="replace")


async def run(
    namespaces: Namespaces,
    namespace: Namespace,
    argv: Sequence[str],
    *,
    timeout_s: float = 10.0,
    check: bool = True,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` to its end; if it has to be killed its group is too.

    Raises:
        CommandError: non-zero exit with ``check``, or no end within ``timeout_s``.
        PlatformError: the program cannot be started.
    """
    process = Process(namespaces, namespace, argv, stdin=stdin, env=env)
    try:
        try:
            code = await process.wait(timeout_s)
        except TimeoutError:
            message = f"no end within {timeout_s:g} s: {process.describe()}"
            raise CommandError(message) from None
        if check and code != 0:
            raise CommandError(process.describe())
        return process.completed()
    finally:
        process.close()
