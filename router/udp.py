"""The sleeve sockets: one port, a DF and a non-DF channel, batched both ways.

How two sockets share the port is in ``native/src/io_udp.c``. Ref: spec sleeve 8.1, 10.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

import anyio

from base.errors import ConfigError, UnderlayError
from native import ffi, lib
from native.datapath import Batch, Datapath, addr_to_c

_IP_MTU: Final = 14
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DO: Final = 2


class SleeveSocket:
    """Both sockets of the sleeve port. Sending is safe from two threads, receiving from one."""

    def __init__(self, host: str, port: int, buffer_bytes: int) -> None:
        """Bind.

        Raises:
            ConfigError: the address or port can't be had; names the option.
            UnderlayError: the kernel lacks something.
        """
        df, frag, err = ffi.new("int *"), ffi.new("int *"), ffi.new("int *")
        addr = addr_to_c(host)
        if lib.wn_udp_open(addr, port, buffer_bytes, df, frag, err) != lib.WN_OK:
            code = int(err[0])
            if code == errno.EADDRINUSE:
                raise ConfigError(
                    f"--port: UDP port {port} is in use; stop the other router or choose another"
                )
            if code == errno.EADDRNOTAVAIL:
                raise ConfigError(f"--host: {host} is not an address of this host")
            if code in (errno.EACCES, errno.EPERM):
                raise ConfigError(f"--port: no permission for UDP port {port}; run as root")
            raise UnderlayError(f"UDP port {port}: {os.strerror(code)}", code)
        self._df = int(df[0])
        self._frag = int(frag[0])
        self.port = port

    def fileno(self) -> int:
        """The socket that receives everything."""
        return self._frag

    @property
    def descriptors(self) -> tuple[int, int]:
        """The DF and the non-DF socket."""
        return self._df, self._frag

    def receive(self, datapath: Datapath, batch: Batch) -> int:
        """Fill the batch; 0: nothing there. A pending socket error counts as nothing."""
        return max(0, int(lib.wn_udp_recv(datapath.c, batch.c, self._frag, 64)))

    def send(self, datapath: Datapath, batch: Batch) -> bool:
        """Send all messages; refusals are counted and left as events in the batch."""
        code: int = lib.wn_udp_send(datapath.c, batch.c, self._df, self._frag)
        return code == lib.WN_OK

    async def writable(self) -> None:
        """Either socket may have been the full one; a datagram that still blocks comes back."""
        await anyio.wait_writable(self._df)
        await anyio.wait_writable(self._frag)

    def drops(self) -> int:
        """Datagrams that the kernel dropped because our receive buffer was full."""
        return int(lib.wn_udp_drops(self._frag))

    def close(self) -> None:
        """Give the port back."""
        os.close(self._df)
        os.close(self._frag)


def path_mtu(addr: str, port: int, host: str = "") -> int:
    """The kernel's path MTU towards an address, in bytes of IP packet.

    Asked of a scratch socket connected there; nothing is sent.

    Raises:
        UnderlayError: no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        try:
            if host:
                sock.bind((host, 0))
            sock.connect((addr, port))
            return int(sock.getsockopt(socket.IPPROTO_IP, _IP_MTU))
        except OSError as err:
            raise UnderlayError(f"no path to {addr}: {err.strerror}", err.errno or 0) from err
