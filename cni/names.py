"""Names of a container's interfaces: what is taken, what is made of it, and the alias that tells.

The host's end of a pair has room for 7 characters behind its prefix. They come from a hash of
container and interface, so that several networks of one container, and containers whose ids begin
alike, stay apart. The whole id stands in the alias of the host's end, where it is found again:

    <container id> SP <interface> [SP <label>]          at most 254 bytes

Source of truth: node specification 1 and 6.1, cni specification 2 and 6.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from base.errors import ConfigError

HOST_PREFIX: Final = "vethwepl"
CONTAINER_ID_LEN_MAX: Final = 200
IFNAME_LEN_MAX: Final = 15
#: Interface of a container that was attached by hand.
DEFAULT_IFNAME: Final = "ethwe"
#: Of 256 bytes the kernel wants two for the end of the text.
_ALIAS_LEN_MAX: Final = 254
_SUFFIX_LEN: Final = 7
_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def check_container_id(text: str) -> str:
    """``text`` if it is a container's id: 1 to 200 of ``a-z A-Z 0-9 _ . -``, no sign first.

    Raises:
        ConfigError: it is not.
    """
    if len(text) > CONTAINER_ID_LEN_MAX:
        raise ConfigError(f"container id: longer than {CONTAINER_ID_LEN_MAX} characters")
    if not _CONTAINER_ID.fullmatch(text):
        raise ConfigError(
            f'container id: "{text}" has to be letters, digits, "_", "." and "-", the first a '
            "letter or digit"
        )
    return text


def check_ifname(text: str) -> str:
    """``text`` if the kernel takes it as an interface's name, and the CNI specification too.

    Raises:
        ConfigError: it does not.
    """
    if (
        not 1 <= len(text.encode()) <= IFNAME_LEN_MAX
        or text in (".", "..")
        or any(char in "/:%" or char.isspace() or not char.isprintable() for char in text)
    ):
        raise ConfigError(
            f'interface name: "{text}" has to be 1 to {IFNAME_LEN_MAX} bytes without blanks, '
            '"/", ":" and "%"'
        )
    return text


def host_ifname(container: str, ifname: str, *, legacy: bool = False) -> str:
    """Name of the host's end; ``legacy``: with the id's first 7 characters, as Weave Net has it."""
    if legacy:
        return HOST_PREFIX + container[:_SUFFIX_LEN]
    digest = hashlib.sha256(f"{container}/{ifname}".encode()).hexdigest()
    return HOST_PREFIX + digest[:_SUFFIX_LEN]


@dataclass(slots=True, frozen=True)
class Alias:
    """What the alias of a host's end says; ``label`` is for people, the name of a pod perhaps."""

    container: str
    ifname: str
    label: str = ""

    def __str__(self) -> str:
        text = f"{self.container} {self.ifname} {self.label}".rstrip()
        return text.encode()[:_ALIAS_LEN_MAX].decode(errors="ignore")

    def names(self, container: str, ifname: str) -> bool:
        """Whether it is that of this interface, whatever its label."""
        return (self.container, self.ifname) == (container, ifname)

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """From an interface's alias; None when it is not of our making."""
        container, _, rest = (text or "").partition(" ")
        ifname, _, label = rest.partition(" ")
        try:
            return cls(check_container_id(container), check_ifname(ifname), label)
        except ConfigError:
            return None
