"""A node as a member of the mesh: the shell that joins mesh, router link and remembered state.

Start: the state file is opened and the name settled; peers are resolved; the port is opened; the
first attempts are made. Only then is anything remembered. What a user can have got wrong ends the
start with one line: a peer that does not resolve, a port in use, a name that another router has.
Peers that were remembered are another matter: those that do not resolve now are tried again.

Which peers: with ``resume``, and after a run that did not end in order, those remembered; else
those given. Source of truth: mesh specification 7, node specification 7 and 13 (row 175).
"""

from __future__ import annotations

import ipaddress
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from base.errors import ConfigError
from base.ipc import RouterReport, Snapshot
from base.log import kv
from base.names import PeerName, format_peer
from control.api.commands import Commands
from control.link import LinkServer
from control.link_core import OverlayNews, RouterJoined
from control.mesh_links import MeshLinks
from control.mesh_view import membership
from control.node import Membership
from control.notices import Notices
from control.password import Password
from control.state import StateStore
from crypto.ciphers import FEATURE
from mesh import events
from mesh.core import CONN_LIMIT, MeshOptions
from mesh.maker import DirectPeer, TargetState
from mesh.node import MeshNode, resolve

#: How long the start waits to hear from the first peers: long enough for a name that is taken, on
#: a busy host too. A dial that nobody answers takes longer and is waited for no further.
SETTLE_S: Final = 4.0
_SETTLE_STEP_S: Final = 0.02
_RESOLVE_AGAIN_S: Final = 30.0
#: How long after our start a router may still know neighbours from the control before us.
YOUNG_S: Final = 10.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class MeshSettings:
    """What the user says of this node's place in the mesh."""

    nickname: str
    name: PeerName
    host: str = ""
    port: int = 6783
    peers: tuple[str, ...] = ()
    resume: bool = False
    discovery: bool = True
    conn_limit: int = CONN_LIMIT
    trusted_subnets: tuple[Network, ...] = ()
    ciphers: str = ""


class MeshService:
    """One node's membership, from start to stop.

    :meth:`attach` it to the router's link before :meth:`run`.
    """

    def __init__(self, settings: MeshSettings, password: Password, store: StateStore) -> None:
        if settings.resume and settings.peers:
            raise ConfigError(
                "--resume: takes the peers of the last run; give none, or leave --resume out"
            )
        self._settings = settings
        self._store = store
        self._fixed_warnings = password.warnings
        self._notices = Notices(password.warnings)
        self._refused_name: str | None = None
        self._router_seen = False
        self._dirty = anyio.Event()
        self._link: LinkServer | None = None
        #: Told when peers, routes or targets have changed, with the peers that were forgotten.
        self.on_topology: Callable[[tuple[PeerName, ...]], None] = _nobody
        #: Peers of the last run whose names do not resolve.
        self.unresolved = 0
        self._peers_known = False
        options = MeshOptions(
            name=settings.name,
            nick=settings.nickname,
            uid=random.SystemRandom().randrange(1, 1 << 64),
            port=settings.port,
            password=password.value,
            conn_limit=settings.conn_limit,
            discovery=settings.discovery,
            trusted_subnets=settings.trusted_subnets,
            features=((FEATURE, settings.ciphers),) if password.value and settings.ciphers else (),
            # a router that outlives us must not take connections of the next run for ours
            first_conn=random.SystemRandom().randrange(1, 1 << 31) << 16,
        )
        self.node = MeshNode(options, host=settings.host, handler=self._handle)
        self._links = MeshLinks(self.node.core, settings.ciphers)

    # --- for the daemon --------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What the router is to have now."""
        return self._links.snapshot()

    @property
    def commands(self) -> Commands:
        """``connect`` and ``forget``."""
        return self

    def attach(self, link: LinkServer) -> None:
        """Publish changes here."""
        self._link = link

    def summary(self) -> str:
        """How many there are, and how we are linked."""
        core = self.node.core
        return f"{len(core.peers)} peers, {len(core.local)} connections"

    def reload(self) -> None:
        """There is no file: peers are changed by ``weft connect`` and ``weft forget``."""
        log.info("nothing to reread; use weft connect and weft forget")

    def membership(self, _: Snapshot, __: RouterReport | None) -> Membership:
        """The mesh for status and reports."""
        now = self.node.now()
        return membership(self.node.core, now, self._notices.texts(now))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be a member until cancelled; started once the first peers were heard, or are slow.

        Raises:
            ConfigError: see the module.
        """
        for warning in self._fixed_warnings:
            log.warning(warning)
        peers, later = await self._choose_peers()
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.node.run)
            tasks.start_soon(self._publish_changes)
            tasks.start_soon(self._grow_up)
            self.node.add(peers)
            self.unresolved = len(later)
            self._peers_known = True
            self._tell_topology()
            await self._settle(peers)
            self._store.begin_run()
            self._store.set_peers([*(peer.text for peer in peers), *later])
            if later:
                tasks.start_soon(self._resolve_later, later)
            task_status.started()

    def stopped(self) -> None:
        """The run ends in order."""
        self._store.end_run()

    # --- the user's commands ---------------------------------------------------------------------

    async def connect(self, peers: list[str], *, replace: bool) -> list[str]:
        """Add direct peers, with ``replace`` instead of all others; sentences on those refused.

        With ``replace`` all are taken or none.
        """
        found, errors = await _resolve_all(peers)
        if errors and replace:
            return errors
        before = [] if replace else list(self.node.core.maker.direct)
        try:
            await self._remember([*before, *(peer.text for peer in found)])
        except ConfigError as err:
            return [str(err)]
        self.node.add(found, replace=replace)
        self._tell_topology()
        return errors

    async def forget(self, peers: list[str]) -> None:
        """Remove direct peers; their connections stay.

        Raises:
            ConfigError: that could not be remembered; nothing was changed.
        """
        await self._remember([text for text in self.node.core.maker.direct if text not in peers])
        self.node.forget(peers)
        self._tell_topology()

    async def _remember(self, texts: list[str]) -> None:
        await anyio.to_thread.run_sync(self._store.set_peers, texts)

    # --- the start -------------------------------------------------------------------------------

    async def _choose_peers(self) -> tuple[list[DirectPeer], list[str]]:
        """The peers to begin with, and remembered ones that do not resolve now."""
        given = list(dict.fromkeys(self._settings.peers))
        crashed = self._store.crashed()
        if not (crashed or self._settings.resume):
            found, errors = await _resolve_all(given)
            if errors:
                raise ConfigError(errors[0])
            return found, []
        remembered = self._store.peers()
        if given and remembered != given:
            log.warning(
                "the last run did not end in order: its peers are used, not those given; "
                "stop and launch again for those",
                extra=kv(peers=len(remembered)),
            )
        found, errors = await _resolve_all(remembered)
        for error in errors:
            log.warning("remembered peer left for later", extra=kv(reason=error))
        taken = {peer.text for peer in found}
        return found, [text for text in remembered if text not in taken]

    async def _settle(self, peers: list[DirectPeer]) -> None:
        """Wait until every direct peer was tried once, or is slow."""
        with anyio.move_on_after(SETTLE_S):
            while peers and self._refused_name is None:
                await anyio.sleep(_SETTLE_STEP_S)  # first of all the targets have to be made
                if not self._untried():
                    break
        if self._refused_name is not None and peers:
            raise ConfigError(self._refused_name)

    def _untried(self) -> bool:
        return any(
            target.state is TargetState.ATTEMPTING
            or (target.state is TargetState.WAITING and target.last_error is None)
            for target in self.node.core.maker.targets.values()
        )

    async def _resolve_later(self, texts: list[str]) -> None:
        while texts:
            await anyio.sleep(_RESOLVE_AGAIN_S)
            found, _ = await _resolve_all(texts)
            self.node.add(found)
            taken = {peer.text for peer in found}
            texts = [text for text in texts if text not in taken]
            self.unresolved = len(texts)
            self._tell_topology()

    # --- between mesh and router -----------------------------------------------------------------

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.ConnectionAdded():
                if self._links.added(event, self.node.now()):
                    log.info("connection added", extra=_of(event.conn, event.peer, event.addr))
                self._dirty.set()
            case events.ConnectionGone():
                log.info("connection gone", extra=kv(peer=event.peer, reason=event.reason))
                self._links.gone(event)
                self._dirty.set()
            case events.ConnectionEstablished():
                log.info("connection established", extra=_of(event.conn, event.peer))
            case events.OverlayControl():
                if (message := self._links.said(event)) is not None:
                    self._publish_now()  # the router must know the connection first
                    if self._link is not None:
                        self._link.tell(message)
            case events.RoutesChanged():
                self._links.routes_changed()
                self._dirty.set()
                self._tell_topology()
            case events.PeersGone(names):
                self._dirty.set()
                self._tell_topology(names)
            case events.NameCollision():
                self._collided(event)
            case events.NamesakesSeen():
                self._twins_seen(event)
            case events.StrangerRefused(addr=addr):
                self._stranger_refused(addr.rpartition(":")[0])
            case _:
                pass

    def _tell_topology(self, gone: tuple[PeerName, ...] = ()) -> None:
        # before the peers are added a count of them would be wrong
        if self._peers_known:
            self.on_topology(gone)

    def _collided(self, event: events.NameCollision) -> None:
        who = format_peer(event.peer, event.nick)
        where = f"at {event.addr}" if event.addr else "in this network"
        text = f"another router {where} has the name of this one, {who}"
        if event.addr in self.node.core.maker.targets:
            self._refused_name = f"--name: {text}; give this host another name"
        self._warn(f"{text}; give one of them another --name")
        log.error("name collision", extra=kv(peer=who, addr=event.addr or None))

    def _twins_seen(self, event: events.NamesakesSeen) -> None:
        hosts = sorted({addr.rpartition(":")[0] for addr in event.addrs})
        where = " and ".join(hosts)
        self._warn(f"routers at {where} share the name {event.peer}; give one another --name")
        log.error("name shared by others", extra=kv(peer=event.peer, addrs=where))

    def _stranger_refused(self, host: str) -> None:
        if self._notices.refused(host, self.node.now()):
            log.warning("refused: another password, or none", extra=kv(addr=host))

    def _warn(self, text: str) -> None:
        self._notices.tell(text, self.node.now())

    def router_news(self, news: RouterJoined | OverlayNews) -> None:
        """What the link to the router brought."""
        now = self.node.now()
        if isinstance(news, RouterJoined):
            if news.fresh and self._router_seen:
                self._links.router_is_fresh(now)
            self._router_seen = True
        elif self._links.router_said(news.event, now):
            self._dirty.set()
        self.node.pump()

    async def _grow_up(self) -> None:
        await anyio.sleep(YOUNG_S)
        self._links.young = False
        self._dirty.set()

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._publish_now()

    def _publish_now(self) -> None:
        if self._dirty.is_set():
            self._dirty = anyio.Event()
            if self._link is not None:
                self._link.publish(self._links.take_snapshot())


def _nobody(_: tuple[PeerName, ...]) -> None:
    """Nobody wants to know."""


def _of(conn: int, peer: PeerName, addr: str | None = None) -> dict[str, object]:
    return kv(conn=conn, peer=peer, addr=addr)


async def _resolve_all(texts: list[str]) -> tuple[list[DirectPeer], list[str]]:
    found: list[DirectPeer] = []
    errors: list[str] = []
    for text in texts:
        try:
            found.append(await resolve(text))
        except ConfigError as err:
            errors.append(str(err))
    return found, errors


def parse_subnets(text: str) -> tuple[Network, ...]:
    """The CIDRs of ``--trusted-subnets``, separated by commas.

    Raises:
        ConfigError: one is none.
    """
    found: list[Network] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            if "/" not in part:
                raise ValueError
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise ConfigError(
                f'--trusted-subnets: "{part}" is no subnet; write CIDRs as "10.0.0.0/8"'
            ) from None
    return tuple(found)
