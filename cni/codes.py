"""Error codes of CNI and how an error is printed. Source of truth: cni specification 7.

An error is one JSON object on standard output, with the version of the configuration, and an exit
status that is not 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

from base.errors import CniError

EXIT_FAILED: Final = 1


class Code(IntEnum):
    """Below 100 the specification's, above ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    BAD_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN = 11
    UNAVAILABLE = 50
    LIMITED = 51
    GENERAL = 100
    INTERFACE_EXISTS = 101
    BRIDGE_MISSING = 102
    POOL_EXHAUSTED = 103
    ADDRESS_IN_USE = 104
    INTERNAL = 999


def invalid(message: str, details: str = "") -> CniError:
    """The network configuration has a value that cannot be."""
    return CniError(Code.INVALID_CONFIG, message, details)


def unsupported(key: str, value: object, remedy: str) -> CniError:
    """The configuration asks for what this plugin does not do; names key and value."""
    shown = msgspec.json.encode(value).decode()
    return CniError(Code.UNSUPPORTED_FIELD, f"unsupported field {key}: {shown}", remedy)


def error_object(error: CniError, cni_version: str) -> dict[str, Any]:
    """The JSON object of an error."""
    shape: dict[str, Any] = {
        "cniVersion": cni_version,
        "code": int(error.code),
        "msg": error.message,
    }
    if error.details:
        shape["details"] = error.details
    return shape
