"""The options of address allocation, checked and turned into what the allocator is told.

``--ipalloc-range ""`` turns it off. Source of truth: ipam specification 5, 10.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from base.errors import ConfigError
from base.names import UNKNOWN_PEER, PeerName
from ipam.address import AddressError, Cidr, parse_universe
from ipam.options import AllocatorOptions, Mode

DEFAULT_RANGE: Final = "10.32.0.0/12"
#: Votes are counted among this many at most.
_PEERS_MAX: Final = 10_000
_INIT: Final = "--ipalloc-init"


@dataclass(slots=True, frozen=True)
class IpamSettings:
    """The range and how it is first divided; see :class:`ipam.options.AllocatorOptions`."""

    universe: Cidr
    default_subnet: Cidr
    mode: Mode = Mode.CONSENSUS
    expected: int = 0
    seeds: tuple[PeerName, ...] = ()

    def options(self, name: PeerName, nick: str, uid: int) -> AllocatorOptions:
        """What the allocator of the peer ``name`` is told; ``uid`` as the mesh announces it."""
        return AllocatorOptions(
            name=name,
            nick=nick,
            uid=uid,
            universe=self.universe,
            default_subnet=self.default_subnet,
            mode=self.mode,
            expected=self.expected,
            seeds=self.seeds,
            unix_now=int(time.time()),
        )


def parse_ipam(range_text: str, subnet_text: str, init_text: str) -> IpamSettings | None:
    """From ``--ipalloc-range``, ``--ipalloc-default-subnet`` and ``--ipalloc-init``.

    None when the range is "": addresses are not allocated.

    Raises:
        ConfigError: one of them is wrong, or makes no sense without or beside another.
    """
    if not range_text:
        for option, text in (("--ipalloc-default-subnet", subnet_text), (_INIT, init_text)):
            if text:
                raise ConfigError(f"{option}: needs a range; give --ipalloc-range, too")
        return None
    universe = _parse("--ipalloc-range", range_text, universe=True)
    subnet = universe
    if subnet_text:
        subnet = _parse("--ipalloc-default-subnet", subnet_text)
        if not subnet.range.overlaps(universe.range):
            raise ConfigError(
                f"--ipalloc-default-subnet: {subnet} lies outside the range {universe}; "
                "choose one inside"
            )
    mode, expected, seeds = _parse_init(init_text)
    return IpamSettings(universe, subnet, mode, expected, seeds)


def _parse(option: str, text: str, *, universe: bool = False) -> Cidr:
    try:
        return parse_universe(text) if universe else Cidr.parse_subnet(text)
    except AddressError as err:
        raise ConfigError(
            f'{option}: {err}; write a network as "10.32.0.0/12", /30 or larger'
        ) from err


def _parse_init(text: str) -> tuple[Mode, int, tuple[PeerName, ...]]:
    word, equals, value = text.partition("=")
    match word:
        case "observer" if not equals:
            return Mode.OBSERVER, 0, ()
        case "seed":
            seeds = _parse_seeds(value)
            return (Mode.SEED, 0, seeds) if seeds else (Mode.CONSENSUS, 0, ())
        case "" | "consensus":
            return Mode.CONSENSUS, _parse_count(value) if equals else 0, ()
        case _:
            raise ConfigError(
                f'{_INIT}: "{text}" is no way to begin; give consensus, consensus=N, '
                "seed=NAME,NAME or observer"
            )


def _parse_count(text: str) -> int:
    """How many peers there will be; 0, a guess, for anything below 1, as the original."""
    try:
        if not text.removeprefix("-").isascii() or len(text) > 12:
            raise ValueError
        count = int(text)
    except ValueError:
        raise ConfigError(f'{_INIT}: consensus={text}: "{text}" is no number of peers') from None
    if count > _PEERS_MAX:
        raise ConfigError(f"{_INIT}: consensus={count}: at most {_PEERS_MAX} peers")
    return max(count, 0)


def _parse_seeds(text: str) -> tuple[PeerName, ...]:
    found: dict[PeerName, None] = {}
    for part in filter(None, text.split(",")):
        try:
            name = PeerName.parse(part)
        except ValueError as err:
            raise ConfigError(f'{_INIT}: seed: {err}; names are as "ce:01:00:00:00:01"') from err
        if name == UNKNOWN_PEER:
            raise ConfigError(f"{_INIT}: seed: {name} stands for nobody")
        found[name] = None
    if len(found) > _PEERS_MAX:
        raise ConfigError(f"{_INIT}: seed: at most {_PEERS_MAX} peers")
    return tuple(found)
