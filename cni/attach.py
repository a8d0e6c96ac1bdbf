"""Containers on a bridge: the pair of interfaces, addresses, routes; and the way back.

Blocking; for worker threads. One :class:`Attacher` serves many of them. What is made is made whole
or not at all: after any failure the pair is gone again, or, where it was there before, what was
added to it.

1. The pair is made in one request, the container's end at once in its namespace under its name.
2. Settings of both ends, while they are down.
3. Alias, hairpin and up on the host's end; then, in one batch, addresses, up and routes on the
   container's.
4. Once the bridge's port forwards, the addresses are announced.
5. The multicast route, which waiters take as the sign that all is done, comes last.

What records are kept, who may attach at a time and where addresses come from is not known here.

Source of truth: node specification 6, cni specification 4 and 5.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from base.errors import ConfigError, NetlinkError, WeftError
from base.log import kv
from base.names import Mac
from cni import requests as req
from cni.announce import Announcer, announcing_socket, gratuitous_arp
from cni.errors import BridgeMissingError, InterfaceExistsError
from cni.links import Link, find_link, find_link_of, read_link
from cni.names import DEFAULT_IFNAME, Alias, host_ifname
from cni.netns import Netns
from cni.requests import Interface, Route
from cni.rtnetlink import Answer, RouteSocket
from cni.sysctl import guard_container_end, guard_host_end

#: How long the answer may wait for the bridge's port to forward.
_FORWARDING_TIMEOUT_S: Final = 1.0
_FORWARDING_STEP_S: Final = 0.0005
#: Before the first announcement at least.
_ANNOUNCE_AFTER_S: Final = 0.001

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Wanted:
    """What an attachment is to be.

    ``container`` and ``ifname`` are checked names (:mod:`cni.names`). ``mtu`` None: the bridge's.
    ``mac`` None: the kernel's choice. A gateway outside all of the addresses' networks gets a route
    of its own first. ``label`` goes into the alias.
    """

    container: str
    addresses: tuple[Interface, ...] = ()
    ifname: str = DEFAULT_IFNAME
    bridge: str = "weave"
    routes: tuple[Route, ...] = ()
    mtu: int | None = None
    mac: str | None = None
    hairpin: bool = True
    multicast_route: bool = False
    legacy_name: bool = False
    label: str = ""

    @property
    def alias(self) -> Alias:
        """What the host's end is to say of itself."""
        return Alias(self.container, self.ifname, self.label)

    @property
    def host_ifname(self) -> str:
        """Name of the host's end."""
        return host_ifname(self.container, self.ifname, legacy=self.legacy_name)


@dataclass(slots=True, frozen=True)
class Attached:
    """What an attachment is. ``created`` False: the pair was there. ``added``: what is new."""

    ifname: str
    mac: str
    mtu: int
    host_ifname: str
    host_mac: str
    host_index: int
    bridge_mac: str
    created: bool
    added: tuple[Interface, ...]


@dataclass(slots=True)
class _Job:
    """One attachment on its way."""

    wanted: Wanted
    netns: Netns
    inside: RouteSocket
    bridge: Link
    host: Link
    container: Link
    created: bool
    added: list[Interface] = field(default_factory=list)


class Attacher:
    """Attaches containers to bridges of the namespace that the making thread is in.

    Raises:
        NetlinkError: there is no netlink.
    """

    def __init__(self) -> None:
        self.host = RouteSocket()
        self._announcer = Announcer()

    def close(self) -> None:
        """Give everything back; announcements still to be repeated are left out."""
        self._announcer.close()
        self.host.close()

    # --- attach ----------------------------------------------------------------------------------

    def attach(self, netns: Netns, wanted: Wanted) -> Attached:
        """Attach a container, or add to its attachment what is missing.

        Raises:
            NetnsError: it is the host's own namespace.
            BridgeMissingError: no such bridge.
            ConfigError: the MTU is larger than the bridge's.
            InterfaceExistsError: the name is taken by something else, or it is on another bridge.
            NetlinkError: the kernel refused.
        """
        netns.refuse_own()
        bridge = self._bridge(wanted)
        with netns.run(RouteSocket) as inside:
            container = find_link(inside, wanted.ifname)
            if container is not None:
                host = self._joined(self._own_host_end(wanted, container), wanted, bridge)
                job = _Job(wanted, netns, inside, bridge, host, container, created=False)
            else:
                host, container = self._make_pair(netns, wanted, bridge, inside)
                job = _Job(wanted, netns, inside, bridge, host, container, created=True)
            try:
                return self._complete(job)
            except BaseException:
                self._undo(job)
                raise

    def _bridge(self, wanted: Wanted) -> Link:
        bridge = find_link(self.host, wanted.bridge)
        if bridge is None or bridge.kind != "bridge":
            reason = "no such bridge; did you launch the node?"
            if bridge is not None:
                reason = f"it is a {bridge.kind or 'plain link'}, not a bridge"
            raise BridgeMissingError("use", wanted.bridge, reason, errno.ENODEV)
        if wanted.mtu is not None and not 68 <= wanted.mtu <= bridge.mtu:
            raise ConfigError(
                f"mtu: {wanted.mtu} is not between 68 and the MTU of bridge {wanted.bridge}, "
                f"{bridge.mtu}"
            )
        return bridge

    def _own_host_end(self, wanted: Wanted, container: Link) -> Link:
        host = find_link(self.host, wanted.host_ifname)
        if (
            host is None
            or container.kind != "veth"
            or container.peer_index != host.index
            or not _is_of(host, wanted.alias)
        ):
            raise InterfaceExistsError(
                "create", wanted.ifname, "it exists and was not made for this container", 17
            )
        return host

    def _joined(self, host: Link, wanted: Wanted, bridge: Link) -> Link:
        """The host's end of an attachment that is there, on ``bridge``: put back if on none."""
        if host.bridge == bridge.index:
            return host
        other = find_link_of(self.host, host.bridge) if host.bridge else None
        if other is not None:
            raise InterfaceExistsError(
                "attach",
                wanted.ifname,
                f"it is on bridge {other.name}, not {bridge.name}; detach it first, or give "
                "another interface",
                errno.EEXIST,
            )
        self.host.one(req.join(host.index, host.name, bridge.index))
        return host

    def _make_pair(
        self, netns: Netns, wanted: Wanted, bridge: Link, inside: RouteSocket
    ) -> tuple[Link, Link]:
        name = wanted.host_ifname
        pair = req.Pair(
            name,
            wanted.ifname,
            bridge.index,
            netns.fileno(),
            bridge.mtu if wanted.mtu is None else wanted.mtu,
            wanted.mac,
        )
        made, look = self._request_pair(pair)
        if made.errno == errno.EEXIST and look.found:
            self._remove_stale(read_link(look.found[0]), wanted)
            made, look = self._request_pair(pair)
        made.check()
        try:
            look.check()
            host = read_link(look.found[0])
            container = find_link(inside, wanted.ifname)
            if container is None:
                raise NetlinkError("find", wanted.ifname, "gone just after it was made")
        except BaseException:
            self._delete_named(name)
            raise
        return host, container

    def _request_pair(self, pair: req.Pair) -> list[Answer]:
        try:
            return self.host.batch([req.make_pair(pair), req.get_link(pair.host_ifname)])
        except BaseException:
            # not told what became of it; one that was there before has an alias
            self._delete_named(pair.host_ifname, unmarked=True)
            raise

    def _remove_stale(self, host: Link, wanted: Wanted) -> None:
        """Remove a pair of this very container whose other end is in a namespace of before."""
        if host.kind != "veth" or not _is_of(host, wanted.alias):
            raise InterfaceExistsError(
                "create", wanted.host_ifname, "it exists and is not of this container", 17
            )
        log.warning(
            "container has a new namespace, its old interface is removed",
            extra=kv(container=wanted.container, ifname=wanted.ifname),
        )
        self.host.one(req.delete_link(host.index, host.name), errno.ENODEV)

    def _complete(self, job: _Job) -> Attached:
        wanted, host, container = job.wanted, job.host, job.container
        # down until now: a router advertisement has nowhere to come from
        guard_host_end(host.name)
        if job.created:
            job.netns.run(lambda: guard_container_end(wanted.ifname))
        self.host.one(
            req.finish_host_end(host.index, host.name, str(wanted.alias), hairpin=wanted.hairpin)
        )
        steps = [req.add_address(container.index, each) for each in wanted.addresses]
        steps.append(req.set_up(container.index, wanted.ifname))
        networks = [address.network for address in wanted.addresses]
        steps += req.add_routes(container.index, wanted.routes, networks)
        answers = job.inside.batch(steps)
        job.added = [
            address
            for address, answer in zip(wanted.addresses, answers, strict=False)
            if answer.errno == 0
        ]
        for answer in answers:
            answer.check(errno.EEXIST)  # an address or route that was there is left
        self._await_forwarding(host)
        self._announce(job)
        if wanted.multicast_route:
            route = req.add_route(container.index, Route(req.MULTICAST))
            job.inside.one(route, errno.EEXIST)
        return Attached(
            ifname=wanted.ifname,
            mac=container.mac,
            mtu=container.mtu,
            host_ifname=host.name,
            host_mac=host.mac,
            host_index=host.index,
            bridge_mac=job.bridge.mac,
            created=job.created,
            added=tuple(job.added),
        )

    def _await_forwarding(self, host: Link) -> None:
        """Wait until what the container sends gets through, for a second at most."""
        time.sleep(_ANNOUNCE_AFTER_S)
        deadline = time.monotonic() + _FORWARDING_TIMEOUT_S
        while time.monotonic() < deadline:
            link = find_link_of(self.host, host.index)
            if link is None or link.forwards:
                return
            time.sleep(_FORWARDING_STEP_S)
        log.warning("the bridge does not forward yet", extra=kv(ifname=host.name))

    def _announce(self, job: _Job) -> None:
        mac = Mac.parse(job.container.mac)
        frames = [gratuitous_arp(mac, each.ip) for each in job.added if each.version == 4]
        if frames:
            ifname = job.wanted.ifname
            sock = job.netns.run(lambda: announcing_socket(ifname))
            self._announcer.announce(job.host.name, sock, frames)

    def _undo(self, job: _Job) -> None:
        with _logged("attachment not undone"):
            self._announcer.cancel(job.host.name)
            if job.created:
                self._delete_named(job.host.name)
            else:
                requests = [req.delete_address(job.container.index, each) for each in job.added]
                job.inside.batch(requests)

    def _delete_named(self, name: str, *, unmarked: bool = False) -> None:
        with _logged("interface not removed"):
            link = find_link(self.host, name)
            if link is not None and not (unmarked and link.alias):
                self.host.one(req.delete_link(link.index, name), errno.ENODEV)

    # --- detach ----------------------------------------------------------------------------------

    def detach(
        self, container: str, ifname: str, *, netns: Netns | None = None, host_name: str = ""
    ) -> bool:
        """Remove an attachment; whether there was one.

        The host's end is found by its name (``host_name`` or what we would give it) and alias, so
        ``netns`` may be gone. Given it, an interface that Weave Net made, whose host's end says
        nothing of itself, is found too.

        Raises:
            NetlinkError: the kernel refused.
        """
        alias = Alias(container, ifname)
        names = (host_name, host_ifname(container, ifname), host_ifname(container, "", legacy=True))
        for name in dict.fromkeys(filter(None, names)):
            link = find_link(self.host, name)
            if link is not None and _is_of(link, alias):
                return self._delete(link)
        if netns is not None and (foreign := self._unmarked_host_end(netns, ifname)) is not None:
            return self._delete(foreign)
        return False

    def detach_unmarked(self, host_name: str) -> bool:
        """Remove the pair of this host's end if it says nothing of itself; whether it was there.

        Raises:
            NetlinkError: the kernel refused.
        """
        link = find_link(self.host, host_name)
        return link is not None and link.kind == "veth" and not link.alias and self._delete(link)

    def _delete(self, link: Link) -> bool:
        self._announcer.cancel(link.name)
        return self.host.one(req.delete_link(link.index, link.name), errno.ENODEV).errno == 0

    def _unmarked_host_end(self, netns: Netns, ifname: str) -> Link | None:
        """The host's end of ``ifname`` if it is one of Weave Net's, which bear no alias."""
        with netns.run(RouteSocket) as inside:
            container = find_link(inside, ifname)
        if container is None or container.kind != "veth" or not container.peer_index:
            return None
        host = find_link_of(self.host, container.peer_index)
        if host is None or host.alias or not host.name.startswith("vethwe") or not host.bridge:
            return None
        return host if host.peer_index == container.index else None

    def remove_addresses(
        self, netns: Netns, ifname: str, addresses: Sequence[Interface]
    ) -> tuple[Interface, ...]:
        """Take addresses off an interface, none of which need be there; those that it had.

        Raises:
            NetlinkError: the kernel refused, or there is no such interface.
        """
        with netns.run(RouteSocket) as inside:
            link = find_link(inside, ifname)
            if link is None:
                raise NetlinkError("find", ifname, "no such interface", errno.ENODEV)
            answers = inside.batch([req.delete_address(link.index, each) for each in addresses])
        for answer in answers:
            answer.check(errno.EADDRNOTAVAIL)
        return tuple(
            each for each, answer in zip(addresses, answers, strict=True) if answer.errno == 0
        )


def _is_of(link: Link, wanted: Alias) -> bool:
    found = Alias.parse(link.alias)
    return found is not None and found.names(wanted.container, wanted.ifname)


@contextlib.contextmanager
def _logged(message: str) -> Any:
    """Clean-up goes on after what it cannot do: the first error is the one to be told."""
    try:
        yield
    except WeftError as err:
        log.error(message, extra=kv(err=err))
