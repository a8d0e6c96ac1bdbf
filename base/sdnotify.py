"""Telling the service manager how we are: the sd_notify protocol, both ends of it.

A process sends datagrams of ``KEY=value`` lines to the Unix socket named by NOTIFY_SOCKET; without
that variable nothing is sent. The supervisor also *receives* such datagrams from its children
(:class:`NotifyReceiver`), from an abstract socket so that no file can be left behind.

Ref: sd_notify(3), systemd.service(5) Type=notify and notify-reload, sd_watchdog_enabled(3).
"""

from __future__ import annotations

import array
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

_CRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_DATAGRAM_LEN_MAX: Final = 4096


def _socket_address(text: str) -> str:
    return "\0" + text[1:] if text.startswith("@") else text


class Notifier:
    """Sender. Errors are swallowed: a service manager that went away is no reason to fail."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")

    @property
    def enabled(self) -> bool:
        """True when somebody asked to be told."""
        return self._address[:1] in ("/", "@")

    def send(self, **variables: str | int) -> bool:
        """Send the variables as one datagram; True when the kernel took it."""
        if not self.enabled:
            return False
        body = "\n".join(f"{key}={value}" for key, value in variables.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(body, _socket_address(self._address))
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        """Start-up, or a reload, is complete."""
        return self.send(READY=1, STATUS=status)

    def reloading(self) -> bool:
        """A reload has begun; :meth:`ready` ends it."""
        return self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def status(self, status: str) -> bool:
        """One line for ``systemctl status``."""
        return self.send(STATUS=status)

    def stopping(self) -> bool:
        """An orderly stop has begun."""
        return self.send(STOPPING=1)

    def keep_alive(self) -> bool:
        """Feed the watchdog."""
        return self.send(WATCHDOG=1)


def watchdog_interval_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds within which the service manager wants a keep-alive; None: it wants none from us."""
    env = os.environ if environ is None else environ
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval_us = int(env.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return interval_us / 1e6 if interval_us > 0 else None


class NotifyReceiver:
    """Receiver for children that we start; the kernel's word tells which of them spoke."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        token = f"weft-{os.getpid()}-{secrets.token_hex(8)}"
        self._socket.bind("\0" + token)
        #: What children get as NOTIFY_SOCKET.
        self.address = "@" + token

    def fileno(self) -> int:
        """For waiting until readable."""
        return self._socket.fileno()

    def receive(self) -> tuple[int, dict[str, str]] | None:
        """Sender's pid and its variables, or None when nothing waits."""
        try:
            body, ancillary, _, _ = self._socket.recvmsg(
                _DATAGRAM_LEN_MAX, socket.CMSG_SPACE(_CRED.size) + socket.CMSG_SPACE(64)
            )
        except BlockingIOError:
            return None
        pid = 0
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_CREDENTIALS and len(data) >= _CRED.size:
                pid = _CRED.unpack_from(data)[0]
            elif kind == socket.SCM_RIGHTS:  # nobody should pass us descriptors: do not keep them
                passed = array.array("i")
                passed.frombytes(data[: len(data) - len(data) % passed.itemsize])
                for descriptor in passed:
                    os.close(descriptor)
        lines = (line.partition("=") for line in body.decode(errors="replace").splitlines())
        return pid, {key: value for key, equals, value in lines if equals}

    def close(self) -> None:
        """Give the socket back; its name vanishes with it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
