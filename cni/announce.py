"""Gratuitous ARP: tells everybody on the wire that an address lives at another MAC from now on.

At first once an address is there, again after 100 ms and after 1 s: the bridge's port may not
forward yet, and a router on another host may still be learning (node specification 14.8). The
repeats are sent by one thread; nobody waits for them.

    Ethernet  ff:ff:ff:ff:ff:ff | own MAC | 0x0806
    ARP       0x0001 0x0800 6 4 0x0001 | own MAC | address | 00:00:00:00:00:00 | address

Ref: RFC 5227 §3 (announcement).
"""

from __future__ import annotations

import heapq
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from base.errors import NetlinkError
from base.names import Mac

#: From each announcement to the next.
GAPS_S: Final = (0.1, 0.9)
#: With more than these waiting the repeats are left out: each holds a descriptor.
_WAITING_MAX: Final = 512
_ETH_P_ARP: Final = 0x0806
_REQUEST: Final = 1
_HEAD: Final = struct.Struct("!HHBBH")


def gratuitous_arp(mac: Mac, address: IPv4Address) -> bytes:
    """The frame, 42 bytes."""
    ethernet = b"\xff" * 6 + mac.octets + _ETH_P_ARP.to_bytes(2, "big")
    own = address.packed
    return ethernet + _HEAD.pack(1, 0x0800, 6, 4, _REQUEST) + mac.octets + own + bytes(6) + own


def announcing_socket(ifname: str) -> socket.socket:
    """A socket that sends frames by ``ifname``; call it inside the interface's namespace.

    Raises:
        NetlinkError: there is none to be had.
    """
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            sock.bind((ifname, 0))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as err:
        raise NetlinkError("announce on", ifname, err.strerror or "", err.errno or 0) from err
    return sock


@dataclass(slots=True, order=True)
class _Waiting:
    when: float
    number: int
    key: str = field(compare=False)
    sock: socket.socket = field(compare=False)
    frames: list[bytes] = field(compare=False)
    gaps_s: tuple[float, ...] = field(compare=False)
    over: bool = field(compare=False, default=False)

    def send(self) -> None:
        """Tell it, if there is somebody to be told."""
        for frame in self.frames:
            try:
                self.sock.send(frame)
            except OSError:
                break  # the interface is gone, or down


class Announcer:
    """Sends announcements now and again later; its threads end when there is nothing to do."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._sending: _Waiting | None = None
        self._finished: list[socket.socket] = []
        self._numbers = itertools.count()
        self._repeating = self._closing = False

    def announce(self, key: str, sock: socket.socket, frames: Iterable[bytes]) -> None:
        """Send ``frames`` now and at the repeats. ``sock`` is ours from here on."""
        waiting = _Waiting(0.0, next(self._numbers), key, sock, list(frames), GAPS_S)
        waiting.send()
        with self._condition:
            waiting.over = len(self._waiting) >= _WAITING_MAX
            self._again_or_close(waiting)
            if self._waiting and not self._repeating:
                self._repeating = True
                threading.Thread(target=self._repeat, name="announcer", daemon=True).start()

    def cancel(self, key: str) -> None:
        """Say nothing more under ``key``; soon its namespace is let go of."""
        self._stop(lambda waiting: waiting.key == key)

    def close(self) -> None:
        """Say nothing more at all; the sockets are closed soon."""
        self._stop(lambda _: True)

    def _stop(self, chosen: Callable[[_Waiting], bool]) -> None:
        with self._condition:
            if self._sending is not None and chosen(self._sending):
                self._sending.over = True
            stopped = [each for each in self._waiting if chosen(each)]
            self._waiting = [each for each in self._waiting if not chosen(each)]
            heapq.heapify(self._waiting)
            for each in stopped:
                each.over = True
                self._again_or_close(each)

    def _again_or_close(self, each: _Waiting) -> None:
        """Under the lock: what follows after something was sent."""
        if each.gaps_s and not each.over:
            each.when, each.gaps_s = time.monotonic() + each.gaps_s[0], each.gaps_s[1:]
            heapq.heappush(self._waiting, each)
        else:
            self._finished.append(each.sock)
            if not self._closing:
                self._closing = True
                threading.Thread(target=self._close, name="announcer-close", daemon=True).start()
        self._condition.notify()

    def _repeat(self) -> None:
        with self._condition:
            while self._waiting:
                if (pause := self._waiting[0].when - time.monotonic()) > 0:
                    self._condition.wait(pause)
                    continue
                self._sending = heapq.heappop(self._waiting)
                self._condition.release()
                try:
                    self._sending.send()
                finally:
                    self._condition.acquire()
                    sent, self._sending = self._sending, None
                self._again_or_close(sent)
            self._repeating = False

    def _close(self) -> None:
        while True:
            with self._condition:
                finished, self._finished = self._finished, []
                if not finished:
                    self._closing = False
                    return
            for sock in finished:
                sock.close()
