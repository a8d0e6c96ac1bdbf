"""Keeps the packet filter as it should be: one transaction in, the kernel watched, mended at once.

The kernel says on a netlink socket when a table changes. If one of ours is no longer what we last
saw there, it is replaced as a whole; what was lost does not matter. Once a minute everything is
looked at anyway, since legacy iptables tells nobody. A transaction that fails changes nothing and
is tried again at the next look.

Source of truth: node specification 5; ipam specification 9.6.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

from base.errors import NftError
from base.log import kv
from control.host import bridge_table, foreign, nft, ruleset
from control.host.nft_events import NftEvents
from control.host.owned import Delta
from control.host.ports import Ports
from control.host.ruleset import Command, HostRules

log = logging.getLogger(__name__)

RECONCILE_S: Final = 60.0
#: Changes come in bursts; look once they have settled.
_SETTLE_S: Final = 0.1
_RETRY_S: Final = 5.0
#: More repairs than this within RECONCILE_S are a quarrel with somebody.
_REPAIRS_MAX: Final = 20
_OUR_FAMILIES: Final = {"ip": 2, "bridge": 7}
_WATCHED_FAMILIES: Final = (1, 2)


@dataclass(slots=True)
class FirewallStatistics:
    """``reconciles``: looks; ``restored``: times that something of ours had been changed or was
    gone; ``failures``: transactions and listings that failed.
    """

    reconciles: int = 0
    restored: int = 0
    failures: int = 0


class Firewall:
    """The two tables of one bridge and the pairs in foreign chains."""

    def __init__(self, rules: HostRules, backend: foreign.Backend = foreign.Backend.AUTO) -> None:
        self._rules = rules
        self._ports: Ports = {}
        self._backend = backend
        self._lock = anyio.Lock()
        #: Family → what the kernel held after our last transaction; None for no table.
        self._seen: dict[str, str | None] = {}
        self._installed = False
        self._restored_at: deque[float] = deque(maxlen=_REPAIRS_MAX)
        self.statistics = FirewallStatistics()
        #: Foreign chains that drop, opened for the bridge.
        self.opened: list[str] = []
        #: Why the packet filter is not as it should be; "" when it is.
        self.problem = ""

    @property
    def rules(self) -> HostRules:
        """What is wanted."""
        return self._rules

    def preset(self, **fields: Any) -> None:
        """Take over fields of :class:`HostRules` before anything was installed."""
        self._rules = replace(self._rules, **fields)

    async def change(self, **fields: Any) -> None:
        """Take over fields of :class:`HostRules` and install them.

        Raises:
            NftError: they could not be installed; they stay wanted and are tried again.
        """
        async with self._lock:
            self._rules = replace(self._rules, **fields)
            await self._install()

    async def change_local_ranges(self, delta: Delta) -> None:
        """Owned ranges: only the difference goes to the kernel. Raises as :meth:`change`."""
        async with self._lock:
            self._rules = replace(self._rules, local_ranges=delta.wanted)
            table = self._rules.table
            commands = ruleset.local_elements(table, "delete", delta.removed)
            commands += ruleset.local_elements(table, "add", delta.added)
            if not self._installed:
                await self._install()
                return
            try:
                await nft.transact(commands)
            except NftError as err:  # the set is not what we thought; all of it then
                log.debug("set not changed, table is replaced", extra=kv(err=str(err)))
                await self._install()
                return
            await self._remember()

    async def change_ports(self, ports: Ports) -> None:
        """Containers that frames come from and go to. Raises as :meth:`change`.

        They come and go all the time, and mostly in one subnet: then nothing is to be done.
        """
        async with self._lock:
            before, self._ports = self._bridge_table(), dict(ports)
            if self._installed and self._bridge_table() == before:
                return
            await self._install(only_bridged=True)

    async def reconcile(self) -> bool:
        """Look, and mend; whether something had to be mended. Raises as :meth:`change`."""
        if self._backend is foreign.Backend.NONE:
            return False
        async with self._lock:
            self.statistics.reconciles += 1
            was_strict = self._rules.strict
            foreign_error: NftError | None = None
            try:
                await self._open_foreign()
            except NftError as err:  # other people's rules are no reason to do without ours
                foreign_error = err
            known = self._installed and was_strict == self._rules.strict
            restored = known and not await self._is_intact()
            if restored or not known:
                await self._install()
            if foreign_error is not None:
                raise foreign_error
            self.problem = ""
            if restored:
                self.statistics.restored += 1
                self._restored_at.append(anyio.current_time())
                log.warning(
                    "packet filter restored",
                    extra=kv(reason="changed by somebody else", attempt=self.statistics.restored),
                )
            return restored

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Install, then watch until cancelled; never fails."""
        if self._backend is foreign.Backend.NONE:
            await self._retire()
            task_status.started()
            await anyio.sleep_forever()
        try:
            events = NftEvents()
        except OSError as err:
            self._failed(NftError("watch", "nftables", err.strerror or str(err), err.errno or 0))
            await self._try_reconcile()
            task_status.started()
            await self._poll()
            return
        with events:
            await self._try_reconcile()
            task_status.started()
            while True:
                await self._reason_to_look(events)
                await self._try_reconcile()

    async def _poll(self) -> None:
        while True:
            await anyio.sleep(_RETRY_S)
            await self._try_reconcile()

    async def _reason_to_look(self, events: NftEvents) -> None:
        """Return on news, after a failure in a moment, and once a minute."""
        with anyio.move_on_after(RECONCILE_S):
            while True:
                with anyio.move_on_after(_RETRY_S) as turn:
                    await self._news(events)
                if not turn.cancelled_caught:
                    # somebody who undoes each repair is not answered for ever at once
                    await anyio.sleep(_RETRY_S if self._quarrels() else 0)
                    return
                if self.problem:
                    return

    def _quarrels(self) -> bool:
        """Whether so much was mended of late that it looks like a war."""
        recent = self._restored_at
        return len(recent) == _REPAIRS_MAX and recent[-1] - recent[0] < RECONCILE_S

    async def _retire(self) -> None:
        """Nothing of ours is wanted: what a process before us installed goes."""
        table = self._rules.table
        try:
            for family in _OUR_FAMILIES:
                if nft.have_nft() and await self._listed(family) is not None:
                    named = {"table": {"family": family, "name": table}}
                    await nft.transact([{"add": named}, {"delete": named}])
            await foreign.close_chains(self._rules.bridge)
        except NftError as err:
            log.warning("packet filter not removed", extra=kv(err=str(err)))
        log.info("packet filter left alone", extra=kv(reason=foreign.BACKEND_VARIABLE))

    async def _news(self, events: NftEvents) -> None:
        """Return when something may have touched what is ours."""
        table = self._rules.table
        while True:
            changes, lost = await events.wait()
            if lost or any(
                (each.table == table and each.family in _OUR_FAMILIES.values())
                # somebody's chain may drop now
                or (each.structural and each.family in _WATCHED_FAMILIES)
                for each in changes
            ):
                await anyio.sleep(_SETTLE_S)
                return

    async def _try_reconcile(self) -> None:
        try:
            await self.reconcile()
        except NftError as err:
            self._failed(err)

    def _failed(self, err: NftError) -> None:
        self.statistics.failures += 1
        if self.problem != str(err):
            log.error("packet filter is not as it should be", extra=kv(err=str(err)))
        self.problem = str(err)

    # Under the lock ------------------------------------------------------------------------------

    async def _open_foreign(self) -> None:
        opened = await foreign.open_chains(self._rules.bridge, self._backend)
        if opened != self.opened:
            log.info("foreign chains opened", extra=kv(chains=", ".join(opened) or "none"))
        self.opened = opened
        self._rules = replace(self._rules, strict=bool(opened))

    def _bridge_table(self) -> list[Command]:
        secured = self._rules.port_security
        return bridge_table.replace_table(self._rules.table, self._ports, secured=secured)

    async def _install(self, *, only_bridged: bool = False) -> None:
        commands = self._bridge_table()
        if not only_bridged or not self._installed:
            commands += ruleset.replace_table(self._rules)
        if self._backend is foreign.Backend.NONE:
            return
        try:
            await nft.transact(commands)
            self._installed = True
            await self._remember()
        except NftError as err:
            self._installed = False  # the next look tries again
            self._failed(err)
            raise

    async def _remember(self) -> None:
        wanted = {
            ruleset.FAMILY: ruleset.replace_table(self._rules),
            bridge_table.FAMILY: self._bridge_table(),
        }
        for family, commands in wanted.items():
            listing = await self._listed(family)
            same = nft.comments(listing) == nft.wanted_comments(commands)
            # not ours any more: what no listing equals, so that the next look mends it
            self._seen[family] = nft.fingerprint(listing) if same else ""

    async def _is_intact(self) -> bool:
        for family, seen in self._seen.items():
            if nft.fingerprint(await self._listed(family)) != seen:
                return False
        return True

    async def _listed(self, family: str) -> nft.Listing | None:
        return await nft.list_table(family, self._rules.table)


class IdleFirewall(Firewall):
    """For a packet filter that is somebody else's: keeps what is wanted, and touches nothing."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Nothing, until cancelled."""
        task_status.started()
        await anyio.sleep_forever()

    async def reconcile(self) -> bool:
        """Nothing had to be mended."""
        return False

    async def change_local_ranges(self, delta: Delta) -> None:
        """Only remembered."""
        self._rules = replace(self._rules, local_ranges=delta.wanted)

    async def _install(self, *, only_bridged: bool = False) -> None:
        pass
