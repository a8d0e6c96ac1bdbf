"""The host's files and processes, wherever this process sees them.

On a host they are where they are. In a container the host's root is mounted somewhere, and so is
its /proc, since a container's own shows no more than its own processes. Whoever names a path to us,
a runtime or an operator, means the host's: below ``/proc`` it is looked up at ``proc``, anything
else at ``root``, and symbolic links lead where they lead on the host.

What belongs to the network namespace is not meant by this: the node runs in the host's, and its own
``/proc/sys/net`` and ``/sys/class/net`` show that.

Source of truth: node specification 8 (``--proc-path``, ``--host-root``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from base.errors import ConfigError
from cni.netns import Netns

PROC: Final = "/proc"
#: The kernel follows as many.
_LINKS_MAX: Final = 40


@dataclass(slots=True, frozen=True)
class HostFiles:
    """``root`` is where the host's root is seen, "" at the root; ``proc`` where its /proc is."""

    root: str = ""
    proc: str = PROC

    @classmethod
    def of(cls, root: str, proc: str) -> Self:
        """From ``--host-root`` and ``--proc-path``.

        Raises:
            ConfigError: one of them is no folder, or not what it should be.
        """
        root, proc = root.rstrip("/"), proc.rstrip("/")
        if root and not (root.startswith("/") and Path(root).is_dir()):
            raise ConfigError(
                f'--host-root: "{root}" is no folder; give the absolute path where the host\'s '
                'root is mounted, or "" outside of containers'
            )
        if not (proc.startswith("/") and Path(proc, "self").is_symlink()):
            raise ConfigError(
                f'--proc-path: "{proc}" is no /proc; give the absolute path where that of the '
                "host is mounted"
            )
        return cls(root, proc)

    def path(self, path: str) -> str:
        """Where an absolute path of the host is seen; any other is left as it is.

        Links are followed by hand: an absolute one, such as ``/var/run``, would lead out of
        ``root``. What does not exist is for whoever opens it to find out.

        Raises:
            ConfigError: links lead round in circles.
        """
        if not path.startswith("/") or (not self.root and self.proc == PROC):
            return path
        done: list[str] = []
        left = path.split("/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done[-1:] = []
                continue
            done.append(part)
            if done == ["proc"]:  # its links are the kernel's, to follow as they are
                return "/".join([self.proc, *left[::-1]])
            target = _target("/".join([self.root, *done]))
            if target is not None:
                links += 1
                if links > _LINKS_MAX:
                    raise ConfigError(f"{path}: too many symbolic links")
                done = [] if target.startswith("/") else done[:-1]
                left += target.split("/")[::-1]
        return "/".join([self.root, *done]) or "/"

    def netns(self, path: str) -> Netns:
        """The network namespace that the host has at ``path``.

        Raises:
            ConfigError: as :meth:`path`.
            NetnsError, NetnsGoneError, PlatformError: as :meth:`Netns.open`.
        """
        return Netns.open(path, at=self.path(path))

    def read(self, path: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a file; None if there is no such file.

        Raises:
            ConfigError: as :meth:`path`.
            OSError: it cannot be read.
        """
        try:
            with Path(self.path(path)).open("rb") as file:
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _target(link: str) -> str | None:
    """What a symbolic link says; None if it is none."""
    try:
        return str(Path(link).readlink())
    except (OSError, ValueError):
        return None
