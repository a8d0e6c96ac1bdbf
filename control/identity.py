"""Which peer name this node has.

In this order: what the user says; the MAC of the bridge if it exists, since whoever ran here before
us, a Weave router too, gave it the name; the name that was remembered; a random one, which is then
remembered. Clones share their machine ids, so a name is made of those only for a host that takes
the place of a Weave router and has been restarted since: it gets the name that Weave gave it, by
which the others know what it owns.

    SHA-256( "9oBJ0Jmip-" | machine-id file | product UUID file ), 6 bytes, as they are in the files

Source of truth: node specification 7, mesh specification 1.1, vectors ``peer_names.json``.
Ref: Weave Net 2.8.1 net/uuid.go.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from base.errors import ConfigError
from base.names import NAME_LEN, UNKNOWN_PEER, Mac, PeerName
from control.host.files import HostFiles
from control.state import StateStore

MACHINE_IDS: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")
UUIDS: Final = ("/sys/class/dmi/id/product_uuid", "/sys/hypervisor/uuid")

_MULTICAST: Final = 0x01
_LOCAL: Final = 0x02
_SALT: Final = b"9oBJ0Jmip-"
_ID_LEN_MAX: Final = 4096


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


def weave_name(files: HostFiles) -> PeerName:
    """The name that Weave Net gives a host by itself, from the ids of its system and its board.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    machine_id = _first(files, MACHINE_IDS)
    uuid = _first(files, UUIDS)
    if machine_id is not None and machine_id.strip() in (b"", b"uninitialized"):
        raise ConfigError(f"--adopt: {MACHINE_IDS[0]} of this host is empty; give --name")
    whole = (machine_id or b"") + (uuid or b"")
    if not whole:
        raise ConfigError(
            f"--adopt: this host has no {MACHINE_IDS[0]} and no product UUID to make its peer name "
            "of, as Weave Net does; give --name"
        )
    return _unicast(hashlib.sha256(_SALT + whole).digest()[:NAME_LEN])


def _first(files: HostFiles, paths: tuple[str, ...]) -> bytes | None:
    for path in paths:
        try:
            found = files.read(path, _ID_LEN_MAX)
        except OSError as err:
            raise ConfigError(
                f"--adopt: {path} cannot be read ({err.strerror}); run as root, or give --name"
            ) from err
        if found is not None:
            return found
    return None


def random_name(rng: random.Random | None = None) -> PeerName:
    """A name that nobody else has."""
    return _unicast((rng or random.SystemRandom()).randbytes(NAME_LEN))


def _unicast(octets: bytes) -> PeerName:
    """With the bits of a MAC address that belongs to one station and to no manufacturer."""
    return PeerName(bytes([(octets[0] & ~_MULTICAST) | _LOCAL, *octets[1:]]))


def settle_name(
    store: StateStore,
    given: PeerName | None,
    bridge: str,
    fresh: Callable[[], PeerName] = random_name,
) -> PeerName:
    """The name of this host, remembered from now on; ``given`` is the user's ``--name``.

    ``fresh`` makes one for a host without a name: :func:`weave_name` where Weave Net ran.

    Raises:
        ConfigError: what ``fresh`` raises, and the disk does not take it.
    """
    chosen = choose_name(given, bridge_mac(bridge), store.name(), fresh)
    store.set_name(chosen)
    return chosen


def choose_name(
    given: PeerName | None,
    bridge: PeerName | None,
    remembered: PeerName | None,
    fresh: Callable[[], PeerName],
) -> PeerName:
    """The name by the rules above; ``fresh`` makes one when there is none.

    A bridge cannot bear a multicast MAC, so a name that was given with that bit once is recognised
    by its other bits.
    """
    if given is not None:
        return given
    if bridge is not None and bridge != UNKNOWN_PEER:
        if remembered is not None and Mac.of_bridge(remembered).octets == bridge.octets:
            return remembered
        return bridge
    return fresh() if remembered is None else remembered
