"""Addresses as the user writes them: ``10.2.1.1/24``, ``ip:10.2.1.1/24``, ``net:10.2.1.0/24``,
``net:default``.

Source of truth: node specification 10 (Peer, addr), 9 (subnet arguments).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    NetmaskValueError,
)
from typing import Final

from base.errors import ConfigError

#: The longest that leaves usable hosts.
PREFIX_LEN_MAX: Final = 30
SPECS_MAX: Final = 256


@dataclass(slots=True, frozen=True)
class FixedAddress:
    """This very address."""

    address: IPv4Interface


@dataclass(slots=True, frozen=True)
class FromSubnet:
    """Any address of a subnet; None: the default one."""

    subnet: IPv4Network | None


AddressSpec = FixedAddress | FromSubnet


def parse_specs(texts: list[str]) -> list[AddressSpec]:
    """All of them, the default subnet where there is none.

    Raises:
        ConfigError: one of them is no address; it is named.
    """
    if len(texts) > SPECS_MAX:
        raise ConfigError(f"address: more than {SPECS_MAX} of them")
    return [parse_spec(text) for text in texts] or [FromSubnet(None)]


def parse_spec(text: str) -> AddressSpec:
    """One of them. Raises as :func:`parse_specs`."""
    if text == "net:default":
        return FromSubnet(None)
    if text.startswith("net:"):
        return FromSubnet(parse_subnet(text.removeprefix("net:")))
    return FixedAddress(parse_cidr(text.removeprefix("ip:")))


def parse_cidr(text: str) -> IPv4Interface:
    """An address with its prefix length, 1 to 32.

    Raises:
        ConfigError: it is none.
    """
    remedy = "write ADDRESS/LENGTH, as 10.2.1.1/24, or net:CIDR, or net:default"
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise ConfigError(f"address: {text[:64]!r} has no prefix length; {remedy}")
    try:
        cidr = IPv4Interface(f"{address}/{length}")
    except (AddressValueError, NetmaskValueError, ValueError) as err:
        raise ConfigError(f"address: {text[:64]!r} is no IPv4 address; {remedy}") from err
    ip = cidr.ip
    if cidr.network.prefixlen < 1 or ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        raise ConfigError(f"address: {text[:64]!r} is no address of a host; {remedy}")
    return cidr


def check_length(address: IPv4Interface, present: Iterable[IPv4Interface | IPv6Interface]) -> None:
    """An address is there once: of two with one prefix length each the first to go frees both.

    Raises:
        ConfigError: ``address`` is ``present`` with another prefix length.
    """
    for other in present:
        if other.ip == address.ip and other != address:
            raise ConfigError(f"address: {address} is there as {other}; take that one off first")


def parse_subnet(text: str) -> IPv4Network:
    """A network with usable hosts and no host bits.

    Raises:
        ConfigError: it is none.
    """
    cidr = parse_cidr(text)
    if cidr.ip != cidr.network.network_address:
        raise ConfigError(f"address: net:{text} has bits of a host; write net:{cidr.network}")
    if cidr.network.prefixlen > PREFIX_LEN_MAX:
        raise ConfigError(f"address: net:{text} has no usable addresses; /30 is the smallest")
    return cidr.network
