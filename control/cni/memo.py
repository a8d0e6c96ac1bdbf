"""What weave-net keeps with the record of an attachment, and the answer that it gives out of both.

The answer is not stored: a repeated ADD gets the same one, composed again.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Self

import msgspec

from cni.result import Ip, Link, Result, Route
from control.attachment_store import Attachment


class Memo(msgspec.Struct, frozen=True, kw_only=True):
    """``sandbox`` as the runtime named it; ``gateway`` of all addresses, ``gateways`` of single
    ones; ``pod`` what CNI_ARGS said of it.
    """

    ipam_type: str = ""
    sandbox: str = ""
    gateway: str = ""
    gateways: dict[str, str] = {}
    dns: dict[str, Any] = {}
    pod: dict[str, str] = {}

    @classmethod
    def of(cls, record: Attachment | None) -> Self:
        """The memo of a record; an empty one if there is none of ours."""
        if record is None or not record.memo:
            return cls()
        try:
            return msgspec.json.decode(record.memo, type=cls)
        except msgspec.DecodeError:
            return cls()


def compose(record: Attachment, bridge_mac: str, host_mac: str) -> Result:
    """The result of an attachment. MAC addresses of bridge and host's end are the kernel's."""
    memo = Memo.of(record)
    ips = []
    for address in record.addresses:
        gateway = memo.gateways.get(str(address)) or memo.gateway
        ips.append(Ip(address, ip_address(gateway) if gateway else None, 2))
    return Result(
        links=(
            Link(record.bridge, bridge_mac),
            Link(record.host_ifname, host_mac),
            Link(record.ifname, record.mac, memo.sandbox or record.netns, record.mtu or None),
        ),
        ips=tuple(ips),
        routes=tuple(Route(one.destination, one.gateway) for one in record.routes),
        dns=memo.dns,
    )
