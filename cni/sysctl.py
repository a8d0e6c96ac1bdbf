"""Settings of an interface under /proc/sys/net, of the namespace that the calling thread is in.

What they are for (node specification 2.4): neighbours notice soon that an address has moved to
another MAC, and no router advertisement of one container reaches another or the host
(CVE-2020-11091). The container's own /proc plays no part: ours shows the namespace that the thread
has entered.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from base.errors import NetlinkError

_NET: Final = Path("/proc/sys/net")
_NEIGHBOUR: Final = (
    ("base_reachable_time_ms", "5000"),
    ("delay_first_probe_time", "2"),
    ("ucast_solicit", "1"),
)


def guard_host_end(ifname: str) -> None:
    """The host's end takes no router advertisements.

    Raises:
        NetlinkError: that cannot be set.
    """
    _set(_NET / "ipv6/conf" / ifname / "accept_ra", "0")


def guard_container_end(ifname: str) -> None:
    """The container's end takes none either, tells of its IPv6 addresses, and doubts neighbours.

    Raises:
        NetlinkError: that cannot be set.
    """
    _set(_NET / "ipv6/conf" / ifname / "accept_ra", "0")
    _set(_NET / "ipv6/conf" / ifname / "ndisc_notify", "1")
    for family in ("ipv4", "ipv6"):
        for key, value in _NEIGHBOUR:
            _set(_NET / family / "neigh" / ifname / key, value)


def guard_problems(ifname: str) -> list[str]:
    """Which settings of a container's end are not as they should be."""
    wanted = [(_NET / "ipv6/conf" / ifname / "accept_ra", "0")]
    wanted += [(_NET / "ipv4/neigh" / ifname / key, value) for key, value in _NEIGHBOUR]
    return [
        f"{path.name} is {found}, not {value}"
        for path, value in wanted
        if (found := _read(path)) not in (None, value)
    ]


def _set(path: Path, value: str) -> None:
    """Write through bare descriptors: ten of these are a third of what an attachment may cost."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # IPv6 is off, or a kernel without the setting
    except OSError as err:
        raise _refusal(path, err) from err
    try:
        os.write(fd, value.encode())
    except OSError as err:
        raise _refusal(path, err) from err
    finally:
        os.close(fd)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _refusal(path: Path, err: OSError) -> NetlinkError:
    return NetlinkError("write", str(path), err.strerror or str(err), err.errno or 0)
