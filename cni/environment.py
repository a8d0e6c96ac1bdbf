"""The environment that a runtime calls a plugin with, checked per command.

Source of truth: cni specification 6, "Required environment".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from base.errors import CniError
from cni.codes import Code

COMMANDS: Final = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
_REQUIRED: Final = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
}
NAME_PATTERN: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
#: It becomes part of file names.
CONTAINER_ID_LEN_MAX: Final = 200
IFNAME_LEN_MAX: Final = 15
_IFNAME_FORBIDDEN: Final = re.compile(r"[/:\s]")


@dataclass(slots=True, frozen=True)
class Environment:
    """One call's variables. What a command does not need may be empty.

    ``args`` are the pairs of CNI_ARGS, ``path`` the folders of CNI_PATH, ``variables`` everything
    the runtime set, for plugins that we call in turn.
    """

    command: str
    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str]
    path: tuple[str, ...]
    variables: Mapping[str, str]


def _bad(name: str, what: str, details: str = "") -> CniError:
    return CniError(Code.BAD_ENVIRONMENT, f"environment variable {name} {what}", details)


def check_container_id(container_id: str) -> None:
    """Check the form of a container's id.

    Raises:
        CniError: code 4.
    """
    if NAME_PATTERN.fullmatch(container_id) is None or len(container_id) > CONTAINER_ID_LEN_MAX:
        raise _bad("CNI_CONTAINERID", "is invalid", f'"{container_id[:CONTAINER_ID_LEN_MAX]}"')


def check_ifname(ifname: str) -> None:
    """Check that a name can be an interface's.

    Raises:
        CniError: code 4.
    """
    encoded = len(ifname.encode("utf-8", "surrogateescape"))
    if (
        not 1 <= encoded <= IFNAME_LEN_MAX
        or ifname in (".", "..")
        or _IFNAME_FORBIDDEN.search(ifname)
        or not ifname.isprintable()
    ):
        raise _bad("CNI_IFNAME", "is invalid", f'"{ifname[:64]}"')


def parse_environment(variables: Mapping[str, str]) -> Environment:
    """Check and take apart the environment of one call.

    Raises:
        CniError: code 4, naming every missing or the first bad variable.
    """
    command = variables.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise _bad("CNI_COMMAND", "is invalid" if command else "is missing", command[:64])
    missing = [name for name in _REQUIRED.get(command, ()) if not variables.get(name)]
    if missing:
        raise _bad(", ".join(missing), "is missing", f"needed for {command}")
    container_id = variables.get("CNI_CONTAINERID", "")
    ifname = variables.get("CNI_IFNAME", "")
    if "CNI_CONTAINERID" in _REQUIRED.get(command, ()):
        check_container_id(container_id)
        check_ifname(ifname)
    return Environment(
        command=command,
        container_id=container_id,
        netns=variables.get("CNI_NETNS", ""),
        ifname=ifname,
        args=_parse_args(variables.get("CNI_ARGS", "")),
        path=tuple(part for part in variables.get("CNI_PATH", "").split(":") if part),
        variables=variables,
    )


def _parse_args(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise _bad("CNI_ARGS", "has an invalid pair", f'"{part[:64]}"')
        pairs[key] = value
    return pairs
