"""Where the HTTP API is: the list of ``--http-addr``, the same for the daemon and the command line.

``/run/weave/weave.sock,127.0.0.1:6784``: absolute paths of Unix sockets and IP addresses with port,
separated by commas; "" for no API. Host names but localhost are refused: to listen on one is to
guess, and to a request over TCP that names one the API answers 403 (see control.api.guard).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from base.errors import ConfigError
from control.sockets import listen_unix

OPTION: Final = "--http-addr"
_BACKLOG: Final = 64


@dataclass(slots=True, frozen=True)
class UnixAddr:
    """A Unix stream socket."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(slots=True, frozen=True)
class TcpAddr:
    """An IP address of this or another host, and a port from 1 to 65535."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


HttpAddr = UnixAddr | TcpAddr


def parse_http_addrs(text: str, option: str = OPTION) -> tuple[HttpAddr, ...]:
    """Addresses from the text of ``option``, in its order; none for "".

    Raises:
        ConfigError: one of them is no address.
    """
    parts = text.split(",") if text.strip() else ()
    return tuple(_parse(part.strip(), option) for part in parts)


def _parse(text: str, option: str) -> HttpAddr:
    if text.startswith("/"):
        return UnixAddr(Path(text))
    host, colon, port = text.rpartition(":")
    try:
        if not (colon and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError
        if host.startswith("[") and host.endswith("]"):
            return TcpAddr(ipaddress.IPv6Address(host[1:-1]), int(port))
        return TcpAddr(
            ipaddress.IPv4Address("127.0.0.1" if host == "localhost" else host), int(port)
        )
    except ValueError:
        raise ConfigError(
            f'{option}: "{text}" is no address; give absolute paths of Unix sockets or IP:PORT, '
            "separated by commas"
        ) from None


def listen_all(
    text: str, held: contextlib.ExitStack, option: str = OPTION, *, anywhere: bool = False
) -> list[socket.socket]:
    """Listen on every address of the option; closed and removed when ``held`` is left.

    ``anywhere``: "all interfaces" is an address, too; for what changes nothing.

    Raises:
        ConfigError: an address is malformed, taken or not ours.
    """
    addresses = parse_http_addrs(text, option)
    return [_listen(address, held, option, anywhere=anywhere) for address in addresses]


def _listen(
    address: HttpAddr, held: contextlib.ExitStack, option: str, *, anywhere: bool
) -> socket.socket:
    if isinstance(address, UnixAddr):
        listener = listen_unix(address.path, 0o660, option, "control")
        held.callback(listener.socket.close)
        held.callback(listener.remove)
        return listener.socket
    if address.ip.is_unspecified and not anywhere:
        raise ConfigError(
            f"{option}: {address} would open the API, which has no password, on every interface; "
            "name one address"
        )
    family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    held.callback(sock.close)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((str(address.ip), address.port))
        sock.listen(_BACKLOG)
    except OSError as err:
        raise ConfigError(
            f"{option}: cannot listen on {address} ({err.strerror}); free it, or name other "
            f"addresses, such as {option} /run/weave/weave.sock"
        ) from err
    return sock
