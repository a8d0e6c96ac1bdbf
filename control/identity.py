"""Which peer name this node has.

In this order: what the user says; the MAC of the bridge if it exists, since whoever ran here before
us, a Weave router too, gave it the name; the name that was remembered; a random one, which is then
remembered. Never derived from machine ids: clones share those.

Source of truth: node specification 7, mesh specification 1.1.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from base.errors import ConfigError
from base.names import UNKNOWN_PEER, Mac, PeerName
from control.state import StateStore

_MULTICAST: Final = 0x01
_LOCAL: Final = 0x02


def parse_name(text: str) -> PeerName:
    """The user's ``--name``.

    Raises:
        ConfigError: it is no peer name.
    """
    try:
        name = PeerName.parse(text)
    except ValueError as err:
        raise ConfigError(f'--name: {err}; write six octets as "ce:01:00:00:00:01"') from err
    if name == UNKNOWN_PEER:
        raise ConfigError(f"--name: {name} stands for nobody; give another")
    return name


def bridge_mac(bridge: str, net: Path = Path("/sys/class/net")) -> PeerName | None:
    """MAC of an existing bridge, None if there is none of this name."""
    if not (net / bridge / "bridge").is_dir():
        return None
    try:
        return PeerName.parse((net / bridge / "address").read_text().strip())
    except (OSError, ValueError):
        return None  # it went away, or it is no Ethernet device


def settle_name(name: str | None, bridge: str, db_prefix: str) -> PeerName:
    """The name of this host, remembered from now on; ``name`` is the user's ``--name``.

    Raises:
        ConfigError: it is no name, or the state file cannot be had, as while a node runs with it.
    """
    given = None if name is None else parse_name(name)
    with StateStore.open(db_prefix) as store:
        chosen = choose_name(given, bridge_mac(bridge), store.name(), random.SystemRandom())
        store.set_name(chosen)
    return chosen


def choose_name(
    given: PeerName | None,
    bridge: PeerName | None,
    remembered: PeerName | None,
    rng: random.Random,
) -> PeerName:
    """The name by the rules above.

    A bridge cannot bear a multicast MAC, so a name that was given with that bit once is recognised
    by its other bits.
    """
    if given is not None:
        return given
    if bridge is not None and bridge != UNKNOWN_PEER:
        if remembered is not None and Mac.of_bridge(remembered).octets == bridge.octets:
            return remembered
        return bridge
    if remembered is not None:
        return remembered
    octets = bytearray(rng.randbytes(6))
    octets[0] = (octets[0] & ~_MULTICAST) | _LOCAL
    return PeerName(bytes(octets))
