"""Stand-in for what the pipelines touch: a sleeve socket without a kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from native import lib
from native.datapath import Batch, Datapath, Message


@dataclass(slots=True, frozen=True)
class Arrival:
    """A datagram, or a train of equal ones, as the kernel would hand it over."""

    data: bytes
    gso_size: int = 0
    addr: str = "127.0.0.1"
    port: int = 6783


class FakeSocket:
    """A :class:`~router.stages.DatagramSocket`: what is sent goes to a function."""

    def __init__(self, on_message: Callable[[Message], None] | None = None) -> None:
        self.inbox: deque[Arrival] = deque()
        #: Every message sent, if nobody else wants them.
        self.sent: list[Message] = []
        self._on_message = on_message or self.sent.append
        #: Refuse to send, as a full socket does.
        self.full = False
        self._room = anyio.Event()

    def receive(self, datapath: Datapath, batch: Batch) -> int:
        """As many arrivals as one batch takes."""
        batch.reset()
        count = 0
        while self.inbox:
            arrival = self.inbox[0]
            code = batch.put_datagram(arrival.data, arrival.addr, arrival.port, arrival.gso_size)
            if code == lib.WN_ERR_FULL:
                break
            assert code == lib.WN_OK
            self.inbox.popleft()
            count += 1
        return count

    def send(self, datapath: Datapath, batch: Batch) -> bool:
        """All messages, or none if full."""
        if self.full:
            return False
        for message in batch.messages():
            self._on_message(message)
        return True

    def fileno(self) -> int:
        return -1

    async def writable(self) -> None:
        """Until :meth:`drain`, if it is full."""
        await anyio.lowlevel.checkpoint()
        while self.full:
            await self._room.wait()

    def drain(self) -> None:
        """There is room again."""
        self.full = False
        self._room.set()
        self._room = anyio.Event()
