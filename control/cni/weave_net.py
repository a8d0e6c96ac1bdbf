"""``weave-net``: a container's interface on the bridge, with address and routes.

The attachment itself, its addresses from Weave's IPAM, its record and what a crash leaves of it are
:mod:`control.attachments`' business. Here is what CNI has beside that: the configuration's wishes
become a request, other IPAMs are asked, the record becomes an answer. Source of truth: cni
specification 2, 4, 5, 6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec

from base.errors import CniError, NetlinkError, WeftError
from base.log import kv
from cni.attach import Attacher, Wanted
from cni.codes import Code, invalid
from cni.config import (
    BUILT_IN_IPAM,
    WeaveNetConfig,
    parse_weave_ipam,
    parse_weave_net,
    patience,
    valid_attachments,
)
from cni.links import find_link
from cni.netns import Netns
from cni.requests import Interface, Route
from cni.result import Ip, Result, merge
from cni.rtnetlink import RouteSocket
from cni.verify import problems
from control.attaching import AttachRequest
from control.attachment_store import Attachment
from control.attachments import Attachments
from control.cni.bridges import Bridges
from control.cni.call import Call
from control.cni.gateway import Gateways, Ways
from control.cni.ipams import Ipams
from control.cni.memo import Memo, compose
from control.cni.weave_ipam import parse_static
from control.host.address_spec import AddressSpec, FixedAddress, FromSubnet

_T = TypeVar("_T")

_UNDO_TIMEOUT_S: Final = 10
#: CHECK right after ADD may see a state that is still on its way.
_SETTLE_S: Final = 1.0
_SETTLE_STEP_S: Final = 0.05
_POD_KEYS: Final = (
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
)

log = logging.getLogger(__name__)


class WeaveNet:
    """A :class:`control.cni.call.Plugin`."""

    def __init__(
        self, attachments: Attachments, ipams: Ipams, gateways: Gateways, bridges: Bridges
    ) -> None:
        self._attachments = attachments
        self._ipams = ipams
        self._gateways = gateways
        self._bridges = bridges

    @property
    def _attacher(self) -> Attacher:
        return self._attachments.book.attacher

    async def _work(self, function: Callable[[], _T]) -> _T:
        return await self._attachments.book.in_thread(function)

    def _netns(self, call: Call) -> Netns:
        """The container's namespace, by descriptor if the stub could open it, else by path.

        Raises:
            NetnsError, NetnsGoneError, PlatformError: as :meth:`Netns.open`.
        """
        path, fd = call.environment.netns, call.netns_fd
        files = self._attachments.book.files
        netns = files.netns(path) if fd is None else Netns.from_fd(fd, path)
        try:
            netns.refuse_own()
        except BaseException:
            netns.close()
            raise
        return netns

    # --- ADD -------------------------------------------------------------------------------------

    async def add(self, call: Call) -> Result:
        """Attach the container; the same answer again for the same attachment."""
        config = parse_weave_net(call.base)
        with self._netns(call) as netns:
            known = self._attachments.get(call.container_id, call.ifname)
            if known is not None and known.network not in ("", call.base.name):
                raise CniError(
                    Code.INTERFACE_EXISTS,
                    f"interface {call.ifname} belongs to network {known.network}",
                )
            if (
                known is not None
                and known.memo
                and known.netns_id == netns.ident
                and await self._work(lambda: _has_link(netns, call.ifname))
            ):
                return await self._answer(config, known)
            if call.base.ipam_type in BUILT_IN_IPAM:
                record = await self._attach_ours(call, config, netns)
            else:
                record = await self._attach_foreign(call, config, netns)
        return await self._answer(config, record)

    async def _attach_ours(self, call: Call, config: WeaveNetConfig, netns: Netns) -> Attachment:
        """Weave's IPAM: allocated and recorded with the attachment."""
        addresses = self._ipams.addresses()
        ipam = parse_weave_ipam(call.base, call.environment.args)
        specs: list[AddressSpec] = [
            FixedAddress(one) for one in parse_static(ipam, addresses.default_subnet)
        ]
        if not specs:
            specs = [FromSubnet(ipam.subnet)]
        network = ipam.subnet or addresses.default_subnet
        if ipam.static:
            first = specs[0]
            network = first.address.network if isinstance(first, FixedAddress) else network
        ways = await self._gateways.ways(
            call, config.bridge, ipam.routes, [(network, ipam.gateway)], ipam.gateway
        )
        return await self._attach(call, config, netns, ways, addresses=tuple(specs))

    async def _attach_foreign(self, call: Call, config: WeaveNetConfig, netns: Netns) -> Attachment:
        """Another IPAM: asked first, told if it comes to nothing."""
        ipam = self._ipams.of_type(call.base.ipam_type)
        given = await ipam.add(call)
        try:
            ips = [ip for ip in given.ips if _is_for(ip, given, call.ifname)]
            ways = await self._gateways.foreign_ways(call, config.bridge, given, ips)
            gateways = {str(ip.address): str(ip.gateway) for ip in ips if ip.gateway}
            fixed = tuple(ip.address for ip in ips)
            return await self._attach(
                call, config, netns, ways, fixed=fixed, gateways=gateways, dns=given.dns
            )
        except BaseException:
            with anyio.move_on_after(_UNDO_TIMEOUT_S, shield=True):
                await self._give_back(call)
            raise

    async def _give_back(self, call: Call) -> None:
        """After a failed ADD, which is what will be told: nothing here is raised."""
        try:
            await self._ipams.of_type(call.base.ipam_type).delete(call)
        except (WeftError, OSError) as err:
            log.error("address not released", extra=kv(container=call.container_id, err=err))

    async def _attach(
        self,
        call: Call,
        config: WeaveNetConfig,
        netns: Netns,
        ways: Ways,
        *,
        addresses: tuple[AddressSpec, ...] = (),
        fixed: tuple[Interface, ...] = (),
        gateways: dict[str, str] | None = None,
        dns: Any = None,
    ) -> Attachment:
        args = call.environment.args
        memo = Memo(
            ipam_type=call.base.ipam_type,
            sandbox=call.environment.netns,
            gateway="" if ways.gateway is None else str(ways.gateway),
            gateways=gateways or {},
            dns=dict(config.dns or dns or {}),
            pod={key: args[key] for key in _POD_KEYS if key in args},
        )
        return await self._attachments.attach(
            AttachRequest(
                container=call.container_id,
                netns=netns,
                ifname=call.ifname,
                bridge=config.bridge,
                addresses=addresses,
                fixed=fixed,
                routes=tuple(Route(one.destination, one.gateway) for one in ways.routes),
                mtu=config.mtu or None,
                mac=config.mac or None,
                hairpin=config.hairpin,
                multicast_route=config.multicast_route,
                network=call.base.name,
                label=_label(call),
                memo=msgspec.json.encode(memo).decode(),
                timeout_s=patience(config.timeout_s),
            )
        )

    async def _answer(self, config: WeaveNetConfig, record: Attachment) -> Result:
        host = self._attacher.host
        bridge = await self._bridges.get(record.bridge)
        outer = await self._work(lambda: find_link(host, record.host_ifname))
        ours = compose(record, bridge.mac, "" if outer is None else outer.mac)
        return ours if config.previous is None else merge(config.previous, ours)

    # --- DEL -------------------------------------------------------------------------------------

    async def delete(self, call: Call) -> None:
        """Detach the container and give its address back."""
        known = self._attachments.get(call.container_id, call.ifname)
        if known is not None and known.network not in ("", call.base.name):
            call.notes.append(f"{call.ifname} belongs to network {known.network}, left alone")
            return
        netns: Netns | None = None
        if known is None and call.environment.netns:
            try:
                netns = self._netns(call)
            except WeftError as err:
                call.notes.append(str(err))
        try:
            await self._attachments.detach(
                call.container_id, call.ifname, everything=True, netns=netns
            )
        finally:
            if netns is not None:
                netns.close()
        types = {call.base.ipam_type, Memo.of(known).ipam_type} - set(BUILT_IN_IPAM)
        for ipam_type in sorted(types):
            await self._ipams.of_type(ipam_type).delete(call)

    # --- CHECK, GC, STATUS -----------------------------------------------------------------------

    async def check(self, call: Call) -> None:
        """Compare with what ADD made, as far as the runtime still knows of it."""
        config = parse_weave_net(call.base)
        if config.previous is None:
            raise invalid("prevResult is missing", "CHECK needs it")
        known = self._attachments.get(call.container_id, call.ifname)
        if known is None or known.network not in ("", call.base.name):
            raise CniError(
                Code.GENERAL,
                f"{call.ifname} of container {call.container_id} is not attached to this network",
            )
        with self._netns(call) as netns:
            wanted = _expected(known, config, config.previous)
            deadline = anyio.current_time() + _SETTLE_S
            while found := await self._work(
                lambda: problems(self._attacher.host, netns, wanted, host_name=known.host_ifname)
            ):
                if anyio.current_time() > deadline:
                    raise CniError(Code.GENERAL, found[0], "; ".join(found[1:]))
                await anyio.sleep(_SETTLE_STEP_S)
        if call.base.ipam_type in BUILT_IN_IPAM:
            await self._check_held(known)
        else:
            await self._ipams.of_type(call.base.ipam_type).check(call)

    async def _check_held(self, known: Attachment) -> None:
        held = set(await self._attachments.book.held(known.ident))
        missing = [address for address in known.addresses if address not in held]
        if missing:
            raise CniError(
                Code.GENERAL, f"address {missing[0]} is no longer allocated to {known.ident}"
            )

    async def collect(self, call: Call) -> None:
        """Detach and release every attachment of this network that is not valid."""
        valid = set(valid_attachments(call.base)) | self._gateways.exposed(call.base.name)
        failed: list[str] = []
        for record in self._attachments.records:
            if record.network != call.base.name or record.key in valid:
                continue
            try:
                await self._attachments.detach(*record.key, everything=True)
                log.info("attachment collected", extra=kv(container=record.container))
            except (WeftError, OSError) as err:
                failed.append(f"{record.container} {record.ifname}: {err}")
        try:
            await self._ipams.of_type(call.base.ipam_type).collect(_with_valid(call, valid))
        except WeftError as err:
            failed.append(str(err))
        if failed:
            raise CniError(Code.GENERAL, f"GC left {len(failed)} things undone", "; ".join(failed))

    async def status(self, call: Call) -> None:
        """Find that ADD could be served."""
        config = parse_weave_net(call.base)
        host = self._attacher.host
        try:
            bridge = await self._work(lambda: find_link(host, config.bridge))
        except NetlinkError as err:
            raise CniError(Code.UNAVAILABLE, "netlink does not answer", str(err)) from err
        if bridge is None:
            raise CniError(
                Code.LIMITED, f"bridge {config.bridge} is missing", "did you launch weave?"
            )
        if not bridge.up:
            raise CniError(Code.LIMITED, f"bridge {config.bridge} is down")
        await self._ipams.of_type(call.base.ipam_type).status(call)


# Pieces -----------------------------------------------------------------------------------------


def _has_link(netns: Netns, ifname: str) -> bool:
    with netns.run(RouteSocket) as inside:
        return find_link(inside, ifname) is not None


def _is_for(ip: Ip, given: Result, ifname: str) -> bool:
    """Whether IPAM means this interface: it names no other one."""
    return ip.link is None or ip.link >= len(given.links) or given.links[ip.link].name == ifname


def _label(call: Call) -> str:
    args = call.environment.args
    parts = (args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", ""))
    return "/".join(part for part in parts if part.isprintable() and part)


def _expected(known: Attachment, config: WeaveNetConfig, previous: Result) -> Wanted:
    """What has to be there: what we made and the runtime still lists, with today's hairpin."""
    inside = {
        index
        for index, link in enumerate(previous.links)
        if link.name == known.ifname and link.sandbox
    }
    if not inside:
        raise CniError(Code.GENERAL, f"prevResult does not list {known.ifname}")
    listed = [ip.address for ip in previous.ips if ip.link in inside]
    missing = [str(address) for address in known.addresses if address not in listed]
    if missing:
        raise CniError(Code.GENERAL, f"prevResult lacks address {missing[0]}")
    still = {one.destination for one in previous.routes}
    return replace(
        known.wanted(),
        addresses=tuple(listed),
        routes=tuple(route for route in known.routes if route.destination in still),
        mtu=None,
        hairpin=config.hairpin,
    )


def _with_valid(call: Call, valid: set[tuple[str, str]]) -> Call:
    """The call with more valid attachments, for IPAMs that know the bridge as one."""
    entries = [{"containerID": one, "ifname": ifname} for one, ifname in sorted(valid)]
    raw: dict[str, Any] = {**call.base.raw, "cni.dev/valid-attachments": entries}
    raw.pop("cni.dev/attachments", None)
    given = msgspec.json.encode(raw)
    return replace(call, base=replace(call.base, raw=raw, given=given))
