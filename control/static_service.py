"""A node with a peers file: the table of the network is the same file on every host.

A bad file at the start ends the start; later ones are logged and the old table stays in force.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from base.errors import ConfigError
from base.ipc import RouterReport, Snapshot
from base.log import kv
from control.link import LinkServer
from control.link_core import OverlayNews, RouterJoined
from control.node import Membership
from control.static_membership import membership
from control.static_peers import identify, read_file, snapshot_of

log = logging.getLogger(__name__)


class StaticService:
    """The peers file at ``path``; who we are is said by ``name`` or else by ``nickname``."""

    commands = None

    def __init__(self, path: Path, name: str | None, nickname: str, port: int) -> None:
        """Read the file.

        Raises:
            ConfigError: it is wrong, or does not know us.
        """
        self._path = path
        with _option_named("--static"):
            self._table = read_file(path)
        self._ourself = identify(self._table, str(path), name, nickname)
        self._link: LinkServer | None = None
        if self._ourself.port != port:
            log.warning(
                "peers send to another port than this router listens on",
                extra=kv(addr=f"{self._ourself.addr}:{self._ourself.port}", port=port),
            )

    def snapshot(self) -> Snapshot:
        """The table as our router needs it."""
        return snapshot_of(self._table, self._ourself)

    def attach(self, link: LinkServer) -> None:
        """Publish changes here."""
        self._link = link

    def router_news(self, news: RouterJoined | OverlayNews) -> None:
        """Static links have no life of which a router could tell."""

    def membership(self, snapshot: Snapshot, report: RouterReport | None) -> Membership:
        """The table for the API."""
        return membership(self._table, snapshot, report)

    def summary(self) -> str:
        """How many there are."""
        return f"{len(self._table.peers)} peers"

    def reload(self) -> None:
        """Reread the file; on any error keep what is in force and say so once."""
        try:
            table = read_file(self._path)
            ourself = identify(table, str(self._path), str(self._ourself.name), "")
        except ConfigError as err:
            log.error("peers file not taken over, the old table stays", extra=kv(err=err))
            return
        self._table, self._ourself = table, ourself
        changed = self._link is not None and self._link.publish(self.snapshot())
        log.info("peers file reread", extra=kv(changed=changed, peers=len(table.peers)))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Nothing happens by itself."""
        task_status.started()
        await anyio.sleep_forever()

    def stopped(self) -> None:
        """Nothing is remembered."""


@contextlib.contextmanager
def _option_named(option: str) -> Iterator[None]:
    """Put the option in front of a ConfigError's message."""
    try:
        yield
    except ConfigError as err:
        raise ConfigError(f"{option}: {err}") from err
