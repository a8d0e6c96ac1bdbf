"""Whether another router's devices stand where ours are to be.

The router process refuses them too, but ``weft launch`` starts that only when control has taken a
name, a range and the containers for its own: nothing would be left to adopt for the next start.

Source of truth: node specification 2.1.
"""

from __future__ import annotations

from pathlib import Path

from base.errors import ConfigError
from control.host.devices import FAST_DATAPATH, PORT


def check_place(capture: str | None, net: Path = Path("/sys/class/net")) -> None:
    """``capture``: the user's ``--capture``; by packet socket we use such a pair ourselves.

    Raises:
        ConfigError: something is there, with what to do.
    """
    if (net / FAST_DATAPATH).exists():
        raise ConfigError(
            f"--adopt: {FAST_DATAPATH} is here, a Weave Net fast datapath; stop Weave Net, then "
            "start with --adopt, which keeps its containers, or run `weave reset`, which does not"
        )
    port = net / PORT
    if capture != "packet" and port.exists() and not (port / "tun_flags").exists():
        raise ConfigError(
            f"--adopt: {PORT} is here and is no TAP, perhaps a router's veth; if it is of Weave "
            f"Net, stop that and start with --adopt, or remove it with `ip link delete {PORT}`"
        )
