"""One call of a plugin, checked, and what every plugin can do with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cni.config import BaseConfig
from cni.environment import Environment
from cni.result import Result


@dataclass(slots=True, frozen=True)
class Call:
    """``netns_fd`` is an O_PATH descriptor of the dispatcher's, None when the stub had none.

    ``notes`` are lines for the runtime's log: the stub prints them on standard error.
    """

    environment: Environment
    base: BaseConfig
    netns_fd: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def container_id(self) -> str:
        """The container."""
        return self.environment.container_id

    @property
    def ifname(self) -> str:
        """Its interface."""
        return self.environment.ifname


class Plugin(Protocol):
    """A plugin's commands. Each may raise CniError; so does any other WeftError become one."""

    async def add(self, call: Call) -> Result:
        """Make an attachment, or what is this plugin's part of it."""

    async def delete(self, call: Call) -> None:
        """Undo it; that there is nothing to undo is no error."""

    async def check(self, call: Call) -> None:
        """Find it as it was made."""

    async def collect(self, call: Call) -> None:
        """GC: undo every attachment of this network that is not among the valid ones."""

    async def status(self, call: Call) -> None:
        """Find that ADD can be served."""
