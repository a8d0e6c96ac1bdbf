"""Command line of the router process, checked before anything on the host is touched.

``weft router`` and ``weft launch`` run it as ``python -m router``; a user's wrong value ends in one
line that names the option and the remedy.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from base.errors import ConfigError
from base.log import FORMATS, LEVELS

MTU_AUTO: Final = 0
#: The record's length field and the TAP both end there; containers may still say 65535.
MTU_MAX: Final = 65535
MTU_MIN: Final = 576
CAPTURES: Final = ("tap", "packet")
LOOPS: Final = ("auto", "one", "two")
_IFNAME_MAX: Final = 15


@dataclass(slots=True, frozen=True)
class RouterSettings:
    """Everything the router is told by its command line; the rest comes from control."""

    control_socket: str
    bridge: str
    host: str
    port: int
    mtu: int
    capture: str
    loops: str
    buffer_mb: int
    log_level: str
    log_format: str
    adopt: bool = False
    packet_debug: bool = False


class _Parser(argparse.ArgumentParser):
    """Errors become ConfigError instead of usage on stderr and exit 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `weft router --help`")


def parse(argv: Sequence[str]) -> RouterSettings:
    """Command line → settings.

    Raises:
        ConfigError: unknown option or impossible value.
    """
    parser = _Parser(prog="weft router", description="The data plane of a Weftnet node.")
    parser.add_argument("--control-socket", default="/run/weave/router.sock", metavar="PATH")
    parser.add_argument("--weave-bridge", default="weave", metavar="NAME")
    parser.add_argument("--host", default="", metavar="IP")
    parser.add_argument("--port", type=int, default=6783)
    parser.add_argument("--mtu", default="auto", metavar="BYTES|auto")
    parser.add_argument("--capture", default="tap", metavar="tap|packet")
    parser.add_argument("--loops", default="auto", metavar="auto|one|two")
    parser.add_argument("--bufsz", type=int, default=8, metavar="MB")
    parser.add_argument("--adopt", action="store_true")
    parser.add_argument("--pkt-debug", action="store_true")
    parser.add_argument("--log-level", default="info", metavar="LEVEL")
    parser.add_argument("--log-format", default="kv", metavar="kv|json")
    args = parser.parse_args(list(argv))
    return RouterSettings(
        control_socket=args.control_socket,
        bridge=_interface(args.weave_bridge),
        host=_address(args.host),
        port=_within("--port", args.port, 1, 65535),
        mtu=_mtu(args.mtu),
        capture=_one_of("--capture", args.capture, CAPTURES),
        loops=_one_of("--loops", args.loops, LOOPS),
        buffer_mb=_within("--bufsz", args.bufsz, 1, 1024),
        log_level=_one_of("--log-level", args.log_level, LEVELS),
        log_format=_one_of("--log-format", args.log_format, FORMATS),
        adopt=args.adopt,
        packet_debug=args.pkt_debug,
    )


def _within(option: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ConfigError(f"{option}: {value} is not between {low} and {high}")
    return value


def _one_of(option: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ConfigError(f'{option}: "{value}" is none of {", ".join(choices)}')
    return value


def _interface(name: str) -> str:
    if not 0 < len(name) <= _IFNAME_MAX or "/" in name or any(char.isspace() for char in name):
        raise ConfigError(
            f'--weave-bridge: "{name}" is no interface name; use 1 to {_IFNAME_MAX} characters'
            " without blanks or slashes"
        )
    return name


def _address(text: str) -> str:
    if text in ("", "0.0.0.0"):
        return ""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as err:
        raise ConfigError(
            f'--host: "{text}" is no IPv4 address; the sleeve overlay runs over IPv4 only'
        ) from err


def _mtu(text: str) -> int:
    if text in ("auto", "0"):
        return MTU_AUTO
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f'--mtu: "{text}" is neither a number nor "auto"')
    return _within("--mtu", int(text), MTU_MIN, MTU_MAX)
