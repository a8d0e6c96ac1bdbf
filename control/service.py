"""What the daemon needs of membership, whether it is a mesh or a peers file."""

from __future__ import annotations

from typing import Protocol

from anyio.abc import TaskStatus

from base.ipc import RouterReport, Snapshot
from control.api.commands import Commands
from control.link import LinkServer
from control.link_core import OverlayNews, RouterJoined
from control.node import Membership


class Service(Protocol):
    """Where the router's state comes from."""

    @property
    def commands(self) -> Commands | None:
        """Changes that a user may ask for; None when there are none."""

    def snapshot(self) -> Snapshot:
        """What the router is to have now."""

    def attach(self, link: LinkServer) -> None:
        """Publish changes here; called once, before :meth:`run`."""

    def router_news(self, news: RouterJoined | OverlayNews) -> None:
        """What came from the router."""

    def membership(self, snapshot: Snapshot, report: RouterReport | None, /) -> Membership:
        """A picture for the API."""

    def summary(self) -> str:
        """A few words for the service manager."""

    def reload(self) -> None:
        """SIGHUP: take over what has changed on disk. Never fails."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled; started when the node may be called ready.

        Raises:
            ConfigError: the user has to mend something.
        """

    def stopped(self) -> None:
        """The run ends in order."""
