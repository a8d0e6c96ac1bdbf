"""A container as a runtime leaves it to us: a process in a namespace of its own, and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.container import Container
from lab.namespaces import Namespace, Namespaces

if TYPE_CHECKING:
    from lab.host import Host


class Guest(Container):
    """Made by Lab.new_guest. Its addresses and host's end are known once it is attached."""

    interface = "ethwe"

    def __init__(self, namespaces: Namespaces, namespace: Namespace, host: Host) -> None:
        super().__init__(namespaces, namespace, host=host, port="", mac="", ipv4="", ipv6="")
        self._process = self.spawn("sleep", "infinity")

    @property
    def pid(self) -> int:
        """Its process, by the number that it has inside the lab."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        return int(line.split()[-1])

    @property
    def netns(self) -> str:
        """Path of its network namespace, valid inside the lab while it runs."""
        return f"/proc/{self.pid}/ns/net"

    async def attach(self, *words: str) -> list[str]:
        """``weft attach`` with ``words`` before its name; the addresses it has then.

        The first of them is :attr:`ipv4` from then on.

        Raises:
            CommandError: it is refused.
        """
        found = await self.host.attach_guest(self.name, ("--pid", str(self.pid), *words))
        self.ipv4 = found[0]
        return found

    async def detach(self, *words: str) -> list[str]:
        """``weft detach``; the addresses that it had.

        Raises:
            CommandError: it fails.
        """
        return await self.host.detach_guest(self.name, words)

    def addresses(self) -> Sequence[str]:
        """IPv4 addresses of :attr:`interface` with prefix length; none if it is not there."""
        argv = ["ip", "-4", "-o", "addr", "show"]
        lines = self.namespaces.tool(self.namespace, argv).splitlines()
        return [line.split()[3] for line in lines if line.split()[1] == self.interface]

    def end(self) -> None:
        """Stop it: process and namespace go, and with them its interface, soon."""
        self._process.close()
        self.namespaces.drop(self.namespace)
