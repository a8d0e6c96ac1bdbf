"""What hosts and containers have in common: a namespace that commands run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from lab.namespaces import Namespace, Namespaces
from lab.process import CommandError, Completed, Process, run
from lab.sniff import Capture

T = TypeVar("T")

#: Written in every namespace of a lab before the first link appears. Bridged frames must not visit
#  iptables unless a test wants it (it costs a third of raw throughput), and IPv6 addresses are
# usable  at once. Recorded by Lab.facts().
SYSCTLS: dict[str, int] = {
    "net/bridge/bridge-nf-call-iptables": 0,
    "net/bridge/bridge-nf-call-ip6tables": 0,
    "net/bridge/bridge-nf-call-arptables": 0,
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/default/router_solicitations": 0,
}

_OFFLOADS = ("tx", "rx", "sg", "tso", "gso", "gro", "tx-udp-segmentation")


class Node:
    """A namespace with a name. Not made by hand: Lab hands them out and owns them."""

    def __init__(self, namespaces: Namespaces, namespace: Namespace) -> None:
        self.namespaces = namespaces
        self.namespace = namespace
        self.name = namespace.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def run(
        self,
        *argv: str,
        timeout_s: float = 10.0,
        check: bool = True,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program here to its end; nothing of it remains.

        Raises:
            CommandError: non-zero exit with ``check``, or no end within ``timeout_s``.
            PlatformError: the program cannot be started.
        """
        return await run(
            self.namespaces,
            self.namespace,
            argv,
            timeout_s=timeout_s,
            check=check,
            stdin=stdin,
            env=env,
        )

    def spawn(
        self, *argv: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program here; the caller closes it, or it ends with the lab.

        Raises:
            PlatformError: the program cannot be started.
        """
        return Process(self.namespaces, self.namespace, argv, stdin=stdin, env=env)

    def ip(self, *lines: str) -> None:
        """Carry out ``ip`` commands here, each without the leading "ip".

        Raises:
            PlatformError: naming the line that failed.
        """
        self.namespaces.ip(self.namespace, lines)

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Write /proc/sys entries here; absent ones are skipped."""
        self.namespaces.sysctl(self.namespace, values)

    def read(self, path: str) -> str:
        """Text of a /proc or /sys file as seen from here.

        Raises:
            OSError: as open does.
        """
        return self.namespaces.read(self.namespace, path).strip()

    def call(self, function: Callable[[], T]) -> T:
        """Run a short function inside this network namespace, for opening sockets there."""
        return self.namespaces.call(self.namespace, function)

    def mtu(self, interface: str) -> int:
        """MTU of an interface here.

        Raises:
            OSError: no such interface.
        """
        return int(self.read(f"/sys/class/net/{interface}/mtu"))

    async def set_offloads(self, interface: str, *, on: bool) -> None:
        """Switch checksum, segmentation and receive offloads of an interface on or off.

        Raises:
            CommandError: ethtool refuses.
        """
        state = "on" if on else "off"
        switches = [word for name in _OFFLOADS for word in (name, state)]
        # ethtool's exit status also tells of features that are fixed: look at the outcome instead.
        done = await self.run("ethtool", "-K", interface, *switches, check=False)
        shown = (await self.run("ethtool", "-k", interface)).stdout
        if f"generic-segmentation-offload: {state}" not in shown:
            raise CommandError(f"{self.name}: ethtool -K {interface}: {done.stderr or shown}")

    def capture(self, interface: str = "eth0") -> Capture:
        """Start to record every packet of ``interface``; the caller closes it.

        Raises:
            OSError: no such interface.
        """
        return Capture(interface, f"{self.name}/{interface}", self.call)

    def enter_command(self) -> str:
        """Shell command that opens a shell here while the lab lives, for debugging."""
        space = self.namespace
        return f"nsenter --net={space.net_path} --mount={space.mount_path}"
