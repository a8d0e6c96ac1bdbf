"""What the lab needs of the machine, told in one line before anything is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from base.errors import ConfigError

#: Program → package of it (Debian's name, which most others share).
PACKAGE_OF = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
}

ALWAYS = ("ip", "bridge", "ethtool", "ping")


def check(tools: Iterable[str] = ALWAYS) -> None:
    """Refuse to start where it cannot work.

    Raises:
        ConfigError: not root, no TUN device, or a tool is missing; the message has the remedy.
    """
    if os.geteuid() != 0:
        raise ConfigError("the lab makes network namespaces and needs root: run it with sudo")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        packages = " ".join(sorted({PACKAGE_OF.get(tool, tool) for tool in missing}))
        raise ConfigError(
            f"not installed: {', '.join(missing)}; install: apt-get install {packages}"
        )
    if not os.path.exists("/dev/net/tun"):  # noqa: PTH110  (a path of the kernel, not of ours)
        raise ConfigError("/dev/net/tun is missing: load the module with `modprobe tun`")
