"""The TAP that is a port of the bridge: made by python-pytun, offloads set explicitly.

Decisions made once, because a TAP remembers them (spec: node 3):
  - single queue: one reader drains it in order, and ``IFF_MULTI_QUEUE`` can't change later;
  - persistent: port, settings and bridge MTU outlive the router, local traffic goes on;
  - ``IFF_VNET_HDR`` with a 10-byte header and checksum, TSO4, TSO6 and USO offload, set on each
    open, since a former owner may have left others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from typing import Final

import pytun

from base.errors import CaptureError
from native import lib
from native.datapath import VNET_LEN, Batch, Datapath

_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO6: Final = 0x04
_TUN_F_TSO_ECN: Final = 0x08
_TUN_F_USO4: Final = 0x20
_TUN_F_USO6: Final = 0x40
_OFFLOADS: Final = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN
_BUSY_RETRY_S: Final = 1.5

#: More than a batch holds.
_MOST: Final = 1 << 20


class TapPort:
    """A :class:`~capture.device.FramePort` on a persistent TAP."""

    kind = "tap"

    def __init__(self, device: pytun.TunTapDevice, interface: str, *, uso: bool) -> None:
        self._device = device
        self._fd: int = device.fileno()
        self.interface = interface
        self.offloads = True
        #: UDP segmentation offload; kernels before 6.2 have none.
        self.uso = uso

    def fileno(self) -> int:
        """Descriptor of /dev/net/tun."""
        return self._fd

    def read(self, datapath: Datapath, batch: Batch, *, burst: bool = True) -> int:
        """Read until the TAP is dry or the batch full; one frame per system call."""
        most = _MOST if burst else 1
        count = int(lib.wn_port_read(datapath.c, batch.c, self._fd, lib.WN_PORT_TAP, most))
        if count < 0:
            code = batch.errno
            raise CaptureError("read from", self.interface, os.strerror(code), code)
        return count

    def write(self, datapath: Datapath, batch: Batch) -> int:
        """One writev per frame or super-frame."""
        return int(lib.wn_port_write(datapath.c, batch.c, self._fd))

    def close(self) -> None:
        """Carrier goes down, the persistent device stays."""
        self._device.close()


def open_tap(interface: str) -> TapPort:
    """Open or create the persistent TAP ``interface`` with all offloads this kernel has.

    A router that was just killed may hold it for a moment, so EBUSY is retried for 1.5 s.

    Raises:
        CaptureError: no privilege, no /dev/net/tun, another router holds it, or the name belongs
            to another kind of device.
    """
    deadline = time.monotonic() + _BUSY_RETRY_S
    while True:
        try:
            device = pytun.TunTapDevice(
                name=interface, flags=pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR
            )
            break
        except OSError as err:
            code = err.errno or 0
            if code == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise CaptureError("open TAP", interface, _explain(code), code) from err
    try:
        device.persist(True)
        fd = device.fileno()
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_LEN))
        uso = True
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOADS | _TUN_F_USO4 | _TUN_F_USO6)
        except OSError:
            uso = False
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOADS)
        os.set_blocking(fd, False)
    except OSError as err:
        device.close()
        code = err.errno or 0
        raise CaptureError("set up TAP", interface, _explain(code), code) from err
    return TapPort(device, interface, uso=uso)


def _explain(code: int) -> str:
    if code == errno.EBUSY:
        return "another router is running on this bridge; stop it first"
    if code in (errno.EPERM, errno.EACCES):
        return "permission denied; run as root or with CAP_NET_ADMIN"
    if code == errno.ENOENT:
        return "/dev/net/tun is missing; load the tun module or use --capture packet"
    if code == errno.EINVAL:
        return "a device of that name exists with another kind or flags; delete it first"
    return os.strerror(code) if code else "unknown error"
