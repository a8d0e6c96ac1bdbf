"""Records of attachments in the state file: written before the success of an attachment is told.

Lists are text, so that the file can be read by people: addresses separated by spaces, routes as
``destination`` or ``destination@gateway``. ``under_way`` is NULL but while an attachment is being
made or changed; then it holds the addresses that were allocated under the same ident before, which
are no business of it.

Source of truth: node specification 6.4.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from base.errors import ConfigError
from cni.attach import Wanted
from cni.netns import NetnsId
from cni.requests import Interface, Route
from control.state import StateStore

_COLUMNS: Final = (
    *("container", "ifname", "ident", "network", "bridge", "host_ifname", "mac", "mtu"),
    *("hairpin", "multicast_route", "addresses", "routes", "netns", "netns_device"),
    *("netns_inode", "label", "memo", "made_at_s", "under_way"),
)
_NAMES: Final = ", ".join(_COLUMNS)
_MARKS: Final = ", ".join("?" * len(_COLUMNS))


@dataclass(slots=True, frozen=True)
class Attachment:
    """One interface of one container. ``mac`` "" until it is made; ``mtu`` in bytes.

    ``ident`` is under what its addresses are allocated; ``network`` the name that the CNI
    configuration has, "" by hand; ``netns`` the path by which its namespace was named, with what
    the kernel calls it; ``label`` is for people; ``memo`` is the maker's own, up to 64 KiB;
    ``made_at_s`` in seconds since 1970. ``under_way``: see the module.
    """

    container: str
    ifname: str
    ident: str
    bridge: str
    host_ifname: str
    network: str = ""
    mac: str = ""
    mtu: int = 0
    hairpin: bool = True
    multicast_route: bool = False
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    netns: str = ""
    netns_id: NetnsId | None = None
    label: str = ""
    memo: str = ""
    made_at_s: float = 0.0
    under_way: tuple[Interface, ...] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.container, self.ifname

    @property
    def foreign(self) -> bool:
        """Made by Weave Net: whose it is nobody says, so the host's end gives its name."""
        return self.container == self.host_ifname

    def wanted(self) -> Wanted:
        """What was asked for, as :mod:`cni.verify` compares it."""
        return Wanted(
            container=self.container,
            addresses=self.addresses,
            ifname=self.ifname,
            bridge=self.bridge,
            routes=self.routes,
            mtu=self.mtu or None,
            hairpin=self.hairpin,
            multicast_route=self.multicast_route,
            label=self.label,
        )

    def finished(self) -> Attachment:
        """The same with nothing under way."""
        return dataclasses.replace(self, under_way=None)


class AttachmentStore:
    """The table. Methods block until the disk has it; any thread may call them.

    Each raises ConfigError when the file cannot be read or written; then nothing was changed.
    """

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def load(self) -> list[Attachment]:
        """All records, in the order in which they were made.

        Raises:
            ConfigError: what is there is no record of ours.
        """
        rows = self._state.rows(f"SELECT {_NAMES} FROM attachment ORDER BY made_at_s, container")
        try:
            return [_decode(dict(zip(_COLUMNS, row, strict=True))) for row in rows]
        except ValueError as err:
            raise ConfigError(f"--db-prefix: {self._state.path} is damaged: {err}") from err

    def put(self, record: Attachment) -> None:
        """Write a record in place of the one with its key."""
        with self._state.change() as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO attachment ({_NAMES}) VALUES ({_MARKS})", _encode(record)
            )

    def delete(self, record: Attachment) -> None:
        """Forget the record with this key."""
        with self._state.change() as connection:
            connection.execute(
                "DELETE FROM attachment WHERE container = ? AND ifname = ?", record.key
            )


def _encode(record: Attachment) -> tuple[object, ...]:
    values = {name: getattr(record, name, None) for name in _COLUMNS}
    netns_id = record.netns_id or NetnsId(0, 0)
    values |= {
        "hairpin": int(record.hairpin),
        "multicast_route": int(record.multicast_route),
        "addresses": _text(record.addresses),
        "routes": " ".join(map(_route_text, record.routes)),
        "netns_device": netns_id.device,
        "netns_inode": netns_id.inode,
        "under_way": None if record.under_way is None else _text(record.under_way),
    }
    return tuple(values[name] for name in _COLUMNS)


def _decode(row: dict[str, Any]) -> Attachment:
    device, inode = row.pop("netns_device"), row.pop("netns_inode")
    under_way = row.pop("under_way")
    return Attachment(
        **row
        | {
            "hairpin": bool(row["hairpin"]),
            "multicast_route": bool(row["multicast_route"]),
            "addresses": _addresses(row["addresses"]),
            "routes": tuple(map(_route, row["routes"].split())),
            "netns_id": NetnsId(device, inode) if inode else None,
            "under_way": None if under_way is None else _addresses(under_way),
        }
    )


def _text(addresses: tuple[Interface, ...]) -> str:
    return " ".join(map(str, addresses))


def _addresses(text: str) -> tuple[Interface, ...]:
    return tuple(map(ipaddress.ip_interface, text.split()))


def _route_text(route: Route) -> str:
    gateway = "" if route.gateway is None else f"@{route.gateway}"
    return f"{route.destination}{gateway}"


def _route(text: str) -> Route:
    destination, at, gateway = text.partition("@")
    return Route(ipaddress.ip_network(destination), ipaddress.ip_address(gateway) if at else None)
