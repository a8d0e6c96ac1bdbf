"""The lab's guardian: first process of a PID namespace, and the reason why nothing ever stays.

Started by :class:`lab.namespaces.Namespaces` as ``python -I -S guardian.py FD`` (20 ms), FD being
one end of a SOCK_SEQPACKET pair whose other end only the lab's process holds. Every process of the
lab lives in the PID namespace made here. When the lab's process ends, by whatever cause, SIGKILL
included, the socket reads end-of-file, the guardian exits, and the kernel kills all that is left in
the PID namespace and with the last process and descriptor drops the network namespaces with their
devices. Files live on a tmpfs that only these mount namespaces see, and go the same way.

Rejected: ``ip netns add`` (leaves files in /run/netns), parent-death signals alone (not inherited
by grandchildren), a cgroup (somebody must live to kill it).

Messages: to the lab first ``pid N`` (this process as the lab sees it), then for each request
``new`` one answer ``ok`` with two descriptors (network, mount namespace) or ``error TEXT``.

Standard library and lab/syscalls.py only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import syscalls


def _new_namespace(link: socket.socket) -> None:
    """In a child: make a network and a mount namespace, hand both to the lab, and end."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        # /sys/class/net shows the network namespace that mounted it: every host needs its own.
        syscalls.mount("sysfs", "/sys", "sysfs")
        kinds = ("net", "mnt")
        descriptors = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in kinds]
        socket.send_fds(link, [b"ok"], descriptors)
    except OSError as err:
        link.send(f"error {err}".encode())
    finally:
        os._exit(0)


def _serve(link: socket.socket) -> None:
    """As first process of the PID namespace: make namespaces on request, reap orphans."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc")
        syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    except OSError as err:
        link.send(f"error {err}".encode())
        return
    link.send(b"ready")
    sources: list[socket.socket | int] = [link, wake_read]
    os.chdir("/")
    while True:
        readable, _, _ = select.select(sources, [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0] != 0:
                    pass
        if link in readable:
            request = link.recv(64)
            if not request:
                return
            if os.fork() == 0:
                _new_namespace(link)


def main() -> None:
    """Outer half: enter the PID namespace by a fork, then only wait for the inner half."""
    link = socket.socket(fileno=int(sys.argv[1]))
    try:
        syscalls.unshare(syscalls.CLONE_NEWPID)
    except OSError as err:
        link.send(f"error {err}".encode())
        return
    inner = os.fork()
    if inner == 0:
        syscalls.die_with_parent(signal.SIGKILL)
        _serve(link)
        os._exit(0)
    link.send(f"pid {inner}".encode())
    link.close()
    os.waitpid(inner, 0)


if __name__ == "__main__":
    main()
