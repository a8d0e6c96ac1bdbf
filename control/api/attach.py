"""Containers over HTTP: ``/attach`` and ``/audit``. On the Unix socket only: who may call enters
namespaces, which the TCP port, open to every user of this host, must not allow.

    POST   /attach/{id}     JSON, see :class:`AttachBody`; answers the attachment and, as Requested,
                            which of its addresses were asked for now
    DELETE /attach/{id}     ?ifname= &addr=SPEC… &all=true &netns=PATH; answers the addresses
    GET    /attach          {"Attachments": […], "Expose": {"Mac", "Addresses"}}
    GET    /audit           what is left over: {"Leaks", "Problems", "Unattached", "Notes"}

SPEC: see :mod:`control.host.address_spec`. A POST that waits for addresses is withdrawn when its
client leaves. 400: the request is wrong, 409: the interface is taken, 500: the kernel refused, 503:
no address, or the disk did not take it: try again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from base.errors import (
    AllocationError,
    ConfigError,
    NoAddressError,
    NotStoredError,
    PlatformError,
)
from cni import requests as req
from cni.attach import Attacher
from cni.errors import InterfaceExistsError
from cni.inventory import read_addresses
from cni.links import find_link
from cni.names import DEFAULT_IFNAME
from cni.netns import Netns
from control.api.caller import caller_of
from control.api.guard import RefusedError, read_body
from control.api.printable import json_text, printable
from control.api.routing import Endpoint, route
from control.attaching import AttachRequest
from control.attachment_audit import Owned, audit
from control.attachment_store import Attachment
from control.attachments import Attachments
from control.host.address_spec import parse_specs

_JSON: Final = "application/json"
_CLIENT_GONE: Final = 499


class AttachBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be attached; ``netns`` a path as the host has it, or ``pid``.

    ``addresses`` are SPECs, none for one of the default subnet; ``bridge`` "" is the node's.
    """

    netns: str = ""
    pid: int = 0
    ifname: str = DEFAULT_IFNAME
    bridge: str = ""
    addresses: list[str] = []
    multicast_route: bool = True
    mtu: int | None = None
    hairpin: bool = True
    label: str = ""
    timeout_s: float | None = None


@dataclass(slots=True, frozen=True)
class ContainerHost:
    """What the routes are about. ``owned`` lists what the allocator holds, None where nothing is
    allocated.
    """

    attachments: Attachments
    bridge: str = "weave"
    owned: Callable[[], Owned] | None = None


def routes(host: ContainerHost | None) -> list[Route]:
    """The routes; none without a ``host``, so that the paths are unknown."""
    if host is None:
        return []
    pages = _Pages(host)
    return [
        _route("/attach/{id}", pages.attach, "POST"),
        _route("/attach/{id}", pages.detach, "DELETE"),
        _route("/attach", pages.listed, "GET"),
        _route("/audit", pages.audit, "GET"),
    ]


def record(attachment: Attachment) -> dict[str, Any]:
    """An attachment for JSON."""
    return {
        "Container": attachment.container,
        "Interface": attachment.ifname,
        "Mac": attachment.mac,
        "MTU": attachment.mtu,
        "Addresses": list(map(str, attachment.addresses)),
        "Bridge": attachment.bridge,
        "HostInterface": attachment.host_ifname,
        "Network": attachment.network,
        "Netns": attachment.netns,
        "Label": attachment.label,
    }


class _Pages:
    """One method per route."""

    def __init__(self, host: ContainerHost) -> None:
        self._host = host
        self._attachments = host.attachments

    async def attach(self, request: Request) -> Response:
        """Attach a container."""
        body = _decoded(await read_body(request))
        specs = tuple(parse_specs(body.addresses))
        made: Attachment | None = None
        with self._netns(body.netns, body.pid) as netns, caller_of(request).while_present():
            made = await self._attachments.attach(
                AttachRequest(
                    container=request.path_params["id"],
                    netns=netns,
                    ifname=body.ifname,
                    bridge=body.bridge or self._host.bridge,
                    addresses=specs,
                    mtu=body.mtu,
                    hairpin=body.hairpin,
                    multicast_route=body.multicast_route,
                    label=body.label,
                    timeout_s=body.timeout_s,
                )
            )
        if made is None:
            return Response(status_code=_CLIENT_GONE)
        requested = self._attachments.requested(made, specs)
        return _json(record(made) | {"Requested": list(map(str, requested))})

    async def detach(self, request: Request) -> Response:
        """Detach a container, or take addresses away."""
        query = request.query_params
        addresses = query.getlist("addr")
        specs = parse_specs(addresses) if addresses else []
        ident, ifname = request.path_params["id"], query.get("ifname", DEFAULT_IFNAME)
        everything = query.get("all") == "true"
        path = query.get("netns", "")
        netns = self._netns(path, 0) if path else None
        try:
            gone = await self._attachments.detach(
                ident, ifname, specs, everything=everything, netns=netns
            )
        finally:
            if netns is not None:
                netns.close()
        return _json(list(map(str, gone)))

    async def listed(self, _: Request) -> Response:
        """Everything attached, and the bridge's own addresses."""
        book = self._attachments.book
        expose = await book.in_thread(partial(_expose, book.attacher, self._host.bridge))
        found = list(map(record, self._attachments.records))
        return _json({"Attachments": found, "Expose": expose})

    async def audit(self, _: Request) -> Response:
        """What is left over."""
        return _json(
            (await audit(self._attachments, self._host.bridge, self._host.owned)).to_json()
        )

    def _netns(self, path: str, pid: int) -> Netns:
        if bool(path) == bool(pid):
            raise ConfigError("netns: give the path of a network namespace or a pid, one of them")
        if path and not path.startswith("/"):
            raise ConfigError(f'netns: "{path}" is no absolute path')
        if pid < 0:
            raise ConfigError(f"pid: {pid} is no process")
        return self._attachments.book.files.netns(path or f"/proc/{pid}/ns/net")


def _expose(attacher: Attacher, bridge: str) -> dict[str, Any]:
    link = find_link(attacher.host, bridge)
    if link is None:
        return {"Mac": "", "Addresses": []}
    found = attacher.host.one(req.list_addresses(link.index)).found
    return {"Mac": link.mac, "Addresses": list(map(str, read_addresses(found, link.index)))}


def _decoded(body: bytes) -> AttachBody:
    try:
        return msgspec.json.decode(body, type=AttachBody)
    except (msgspec.DecodeError, UnicodeError) as err:
        raise ConfigError(f"the request's body: {err}") from err


def _route(path: str, page: Endpoint, method: str) -> Route:
    async def guarded(request: Request) -> Response:
        if not caller_of(request).is_unix:
            raise RefusedError(403, f"{path.split('/')[1]} is served on the Unix socket only")
        try:
            return await page(request)
        except InterfaceExistsError as err:
            return _refused(err, 409)
        except (NoAddressError, NotStoredError) as err:
            return _refused(err, 503)
        except AllocationError as err:
            return _refused(err, 400)
        except PlatformError as err:
            return _refused(err, 500)

    return route(path, guarded, method)


def _refused(err: Exception, code: int) -> Response:
    return PlainTextResponse(f"{printable(str(err))}\n", code)


def _json(value: Any) -> Response:
    return Response(json_text(value), media_type=_JSON)
