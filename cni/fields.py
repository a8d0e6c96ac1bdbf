"""Reading values out of decoded JSON, with errors that name the key.

Every function takes the object, the key, and where the object stands ("ipam."), which is only for
messages. Raises CniError with code 7 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, TypeVar

from base.errors import CniError
from cni.codes import invalid

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_T = TypeVar("_T", str, bool)
_SHOWN_LEN = 64


def wrong(where: str, key: str, what: str, value: object) -> CniError:
    """``value`` at ``key`` is not ``what`` it has to be."""
    return invalid(f"{where}{key} is no {what}", repr(value)[:_SHOWN_LEN])


def _typed(found: Mapping[str, Any], key: str, default: _T, kind: type[_T], what: str) -> _T:
    value = found.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise wrong("", key, what, value)
    return value


def text(found: Mapping[str, Any], key: str, default: str = "") -> str:
    """A string; null is the same as absent."""
    return _typed(found, key, default, str, "text")


def flag(found: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """A boolean; null is the same as absent."""
    return _typed(found, key, default, bool, "boolean")


def number(
    found: Mapping[str, Any], key: str, where: str = "", low: int = 0, high: int = 2**32 - 1
) -> int | None:
    """A whole number from ``low`` to ``high``; None when absent."""
    value = found.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(where, key, f"whole number from {low} to {high}", value)
    return value


def table(found: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """An object; absent or null is an empty one."""
    value = found.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(where, key, "object", value)
    return value


def rows(found: Mapping[str, Any], key: str, where: str = "") -> list[Any] | None:
    """A list; None when absent or null."""
    value = found.get(key)
    if value is not None and not isinstance(value, list):
        raise wrong(where, key, "list", value)
    return value


def entry(value: object, where: str) -> dict[str, Any]:
    """An object inside a list."""
    if not isinstance(value, dict):
        raise wrong(where, "entry", "object", value)
    return value


def address(value: object, where: str, key: str) -> Address:
    """An address without prefix length."""
    try:
        return ip_address(_string(value))
    except ValueError as err:
        raise wrong(where, key, "address", value) from err


def optional_address(found: Mapping[str, Any], key: str, where: str = "") -> Address | None:
    """An address; None when absent, null or empty."""
    return None if found.get(key) in (None, "") else address(found[key], where, key)


def interface(value: object, where: str, key: str) -> Interface:
    """An address with its prefix length."""
    try:
        word = _string(value)
        if "/" not in word:
            raise ValueError(word)
        return ip_interface(word)
    except ValueError as err:
        raise wrong(where, key, "address with prefix length", value) from err


def network(value: object, where: str, key: str, *, strict: bool = True) -> Network:
    """A subnet; ``strict``: no bits set behind the prefix."""
    try:
        word = _string(value)
        if "/" not in word:
            raise ValueError(word)
        return ip_network(word, strict=strict)
    except ValueError as err:
        raise wrong(where, key, "network address with prefix length", value) from err


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value
