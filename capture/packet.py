"""A packet socket on one end of a veth pair: the way without a TAP, as Weave itself captured.

``vethwe-bridge`` is the port of the bridge, ``vethwe-pcap`` the router's end. The socket takes what
arrives there (outgoing frames, which are our own, are ignored in the kernel), with a virtio-net
header in both directions, promiscuous, and asks for the VLAN tags that the kernel strips.
Ref: spec node 3, sleeve 2.2; packet(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from base.errors import CaptureError
from native import lib
from native.datapath import Batch, Datapath

_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_AUXDATA: Final = 8
_VNET_HDR: Final = 15
_IGNORE_OUTGOING: Final = 23
_MR_PROMISC: Final = 1
_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33

#: More than a batch holds.
_MOST: Final = 1 << 20


class PacketPort:
    """A :class:`~capture.device.FramePort` on an AF_PACKET socket."""

    kind = "packet"

    def __init__(self, sock: socket.socket, interface: str) -> None:
        self._socket = sock
        self._fd = sock.fileno()
        self.interface = interface
        self.offloads = True

    def fileno(self) -> int:
        """Descriptor of the packet socket."""
        return self._fd

    def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:  # noqa: ARG002
        """Read until the socket is dry or the batch full; many frames per system call."""
        count = int(lib.wn_port_read(datapath.c, batch.c, self._fd, lib.WN_PORT_PACKET, _MOST))
        if count < 0:
            code = batch.errno
            raise CaptureError("read from", self.interface, os.strerror(code), code)
        return count

    def write(self, datapath: Datapath, batch: Batch) -> int:
        """One writev per frame or super-frame."""
        return int(lib.wn_port_write(datapath.c, batch.c, self._fd))

    def close(self) -> None:
        """The veth pair stays."""
        self._socket.close()


def open_packet(interface: str, buffer_bytes: int) -> PacketPort:
    """Open the capturing socket on ``interface`` (the router's end of the pair).

    Raises:
        CaptureError: no privilege, or no such interface.
    """
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as err:
        reason = "permission denied; run as root or with CAP_NET_RAW"
        raise CaptureError("open packet socket", interface, reason, err.errno or 0) from err
    try:
        index = socket.if_nametoindex(interface)
        sock.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        promiscuous = struct.pack("iHH8s", index, _MR_PROMISC, 0, b"")
        sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, promiscuous)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.bind((interface, _ETH_P_ALL))
    except OSError as err:
        sock.close()
        code = err.errno or errno.ENODEV  # if_nametoindex tells none
        raise CaptureError("capture on", interface, os.strerror(code), code) from err
    return PacketPort(sock, interface)
