"""Versions of the CNI specification: which there are, what each brought.

Source of truth: cni specification 1 and 6.
"""

from __future__ import annotations

from typing import Any, Final

from base.errors import CniError
from cni.codes import Code, invalid

#: Oldest first.
SUPPORTED: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST: Final = SUPPORTED[-1]
#: What a configuration without ``cniVersion`` means.
UNSAID: Final = SUPPORTED[0]

#: Command → version of the configuration from which on it may be asked for.
SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def at_least(version: str, other: str) -> bool:
    """Whether one of our versions is as new as another of them."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def version_of(config: dict[str, Any]) -> str:
    """The version that a configuration is written in.

    Raises:
        CniError: code 7, it is no text; code 1, we do not know it.
    """
    version = config.get("cniVersion", UNSAID)
    if not isinstance(version, str):
        raise invalid("cniVersion is no text")
    version = version or UNSAID
    if version not in SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f'config is "{version}", plugin supports {" ".join(SUPPORTED)}',
        )
    return version


def require(command: str, version: str) -> None:
    """Check that ``command`` exists in ``version``.

    Raises:
        CniError: code 1.
    """
    since = SINCE.get(command)
    if since is not None and not at_least(version, since):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{command} needs cniVersion {since} or newer",
            f'config is "{version}"',
        )


def version_answer(given: object) -> dict[str, Any]:
    """What VERSION prints; ``given`` is the configuration's cniVersion, if it has one."""
    asked = given if isinstance(given, str) and given else NEWEST
    return {"cniVersion": asked, "supportedVersions": list(SUPPORTED)}
