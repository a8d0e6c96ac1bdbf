"""Network namespaces without names, and processes inside them, tied to the life of this process.

A :class:`Namespaces` owns one guardian (see lab/guardian.py) and one worker thread. The worker has
entered the guardian's PID namespace, so that whatever it starts is killed with it; it steps into a
network (and mount) namespace for the length of one call. Nobody else changes namespaces: the event
loop's thread stays where it was.

A :class:`Namespace` is two descriptors. ``close()`` of the whole is idempotent; forgetting it costs
nothing but time, since the end of this process has the same effect.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from base.errors import PlatformError
from lab import syscalls

T = TypeVar("T")

_GUARDIAN_ANSWER_TIMEOUT_S = 10.0
_TOOL_TIMEOUT_S = 20.0


@dataclass(slots=True, frozen=True)
class Namespace:
    """One host or container: descriptors of its network and mount namespace."""

    name: str
    net_fd: int
    mount_fd: int

    @property
    def net_path(self) -> str:
        """Path by which ``ip ... netns PATH`` of the outer mount namespace reaches it."""
        return f"/proc/{os.getpid()}/fd/{self.net_fd}"

    @property
    def mount_path(self) -> str:
        """The same for the mount namespace, for ``nsenter --mount=PATH``."""
        return f"/proc/{os.getpid()}/fd/{self.mount_fd}"


class Namespaces:
    """Makes namespaces and starts processes in them; see the module's head.

    Raises:
        PlatformError: no privilege, or the kernel lacks a kind of namespace.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._closed = False
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.settimeout(_GUARDIAN_ANSWER_TIMEOUT_S)
        with theirs:
            self._guardian = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("guardian.py")),
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-namespaces")
        try:
            # The outer half and the inner half report in either order.
            answers = {self._answer(), self._answer()}
            self.init_pid = int(next(a for a in answers if a.startswith("pid")).split()[1])
            self._own_net = self._open("/proc/self/ns/net")
            self._own_mount = self._open("/proc/self/ns/mnt")
            self._worker.submit(self._enter_pid_namespace).result()
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def _answer(self) -> str:
        text = self._link.recv(1024).decode()
        if text.startswith("error") or not text:
            reason = text.removeprefix("error ") or "the guardian ended"
            raise PlatformError("create", "lab namespaces", reason)
        return text

    def _enter_pid_namespace(self) -> None:
        syscalls.unshare(syscalls.CLONE_FS)
        fd = self._open(f"/proc/{self.init_pid}/ns/pid")
        syscalls.setns(fd, syscalls.CLONE_NEWPID)

    @property
    def run_path(self) -> Path:
        """The lab's private /run as this process reaches it."""
        return Path(f"/proc/{self.init_pid}/root/run")

    def create(self, name: str) -> Namespace:
        """A new, empty namespace; ``name`` is only for messages."""
        self._link.send(b"new")
        message, fds, _, _ = socket.recv_fds(self._link, 1024, 2)
        self._fds.extend(fds)
        for fd in fds:
            os.set_inheritable(fd, False)
        if len(fds) != 2:
            raise PlatformError("create", f"namespace {name}", message.decode() or "no answer")
        return Namespace(name, fds[0], fds[1])

    def drop(self, namespace: Namespace) -> None:
        """Let go of one namespace: it ends with the last process inside."""
        for fd in (namespace.net_fd, namespace.mount_fd):
            self._fds.remove(fd)
            os.close(fd)

    def call(self, namespace: Namespace, function: Callable[[], T], *, mounts: bool = False) -> T:
        """Run ``function`` on the worker thread inside ``namespace`` and return its result.

        It must be short and must not start threads. With ``mounts`` it also sees the namespace's
        own /proc, /sys and /run.
        """
        return self._worker.submit(self._call_inside, namespace, function, mounts).result()

    def _call_inside(self, namespace: Namespace, function: Callable[[], T], mounts: bool) -> T:
        syscalls.setns(namespace.net_fd, syscalls.CLONE_NEWNET)
        try:
            if mounts:
                syscalls.setns(namespace.mount_fd, syscalls.CLONE_NEWNS)
            return function()
        finally:
            if mounts:
                syscalls.setns(self._own_mount, syscalls.CLONE_NEWNS)
            syscalls.setns(self._own_net, syscalls.CLONE_NEWNET)

    def popen(
        self,
        namespace: Namespace,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` in ``namespace``: own session, the lab's PID namespace, given descriptors.

        Raises:
            PlatformError: the program cannot be started.
        """
        cwd = Path.cwd()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

        try:
            child = self.call(namespace, start, mounts=True)
        except OSError as err:
            reason = err.strerror or str(err)
            raise PlatformError("start", argv[0], reason, err.errno or 0) from err
        self._children = [known for known in self._children if known.returncode is None]
        self._children.append(child)
        return child

    def ip(self, namespace: Namespace, lines: Sequence[str]) -> None:
        """Carry out ``ip`` commands, one a line without the leading "ip", in one process.

        Raises:
            PlatformError: naming the first line that failed.
        """
        done = self._tool(namespace, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
        if done.returncode != 0:
            reason = " ".join(done.stderr.split())
            number = reason.rpartition("Command failed -:")[2]
            line = lines[int(number) - 1] if number.isdigit() else lines[0]
            raise PlatformError("ip", f"{line} (in {namespace.name})", reason)

    def tool(self, namespace: Namespace, argv: Sequence[str], stdin: str = "") -> str:
        """Run a short set-up tool (tc, nft) inside and return its output.

        Raises:
            PlatformError: it fails.
        """
        done = self._tool(namespace, argv, stdin)
        if done.returncode != 0:
            reason = " ".join((done.stderr or done.stdout).split())
            raise PlatformError(argv[0], f"{' '.join(argv[1:])} (in {namespace.name})", reason)
        return done.stdout

    def _tool(
        self, namespace: Namespace, argv: Sequence[str], stdin: str
    ) -> subprocess.CompletedProcess[str]:
        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TOOL_TIMEOUT_S,
                start_new_session=True,
            )

        try:
            return self.call(namespace, run)
        except (OSError, subprocess.TimeoutExpired) as err:
            raise PlatformError("run", argv[0], str(err)) from err

    def sysctl(self, namespace: Namespace, values: Mapping[str, str | int]) -> None:
        """Write /proc/sys entries (dots or slashes as separator); absent ones are skipped."""

        def write() -> None:
            for key, value in values.items():
                path = Path("/proc/sys", key if "/" in key else key.replace(".", "/"))
                if path.exists():
                    path.write_text(str(value))

        self.call(namespace, write)

    def read(self, namespace: Namespace, path: str) -> str:
        """Text of ``path`` as seen inside (its /sys, /proc/sys, /proc/net).

        Raises:
            OSError: as open does.
        """

        def read() -> str:
            return Path(path.replace("/proc/net", "/proc/thread-self/net")).read_text()

        return self.call(namespace, read, mounts=not path.startswith("/proc/"))

    def close(self) -> None:
        """Kill everything started, drop everything made, wait until that is done."""
        if self._closed:
            return
        self._closed = True
        self._link.close()
        # Children first: the guardian's inner half ends only when everybody in its PID namespace
        # has been reaped, and for those that we started that is for us to do.
        ending = [*self._children, self._guardian]
        try:
            for process in ending:
                process.wait(_GUARDIAN_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._guardian.kill()  # the inner half has asked to die with it
            for process in ending:
                process.wait()
        self._worker.shutdown()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
