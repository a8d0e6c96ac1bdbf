"""All targets by name. A target takes any bytes and returns; whatever it raises is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.fuzz import core, text, wire

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "control_link": wire.control_link,
    "core": core.core,
    "datagram": wire.datagram,
    "envelope": wire.envelope,
    "features": wire.features,
    "frames": wire.frames,
    "gob": wire.gob_stream,
    "intro": wire.intro,
    "ipam_peer": wire.ipam_peer,
    "ipam_state": wire.ipam_state,
    "names": text.names,
    "password": text.password,
    "peers_file": text.peers_file,
    "tcp": wire.tcp,
    "update": wire.update,
}
