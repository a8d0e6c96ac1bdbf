"""The router's end of the control link: dials, hands messages over, dials again.

Control may come and go; what it last said stays in force. Ref: base/ipc.py.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import SocketStream

from base.errors import RemoteProtocolError
from base.ipc import (
    SCHEMA_VERSION,
    MessageReader,
    RouterHello,
    ToControl,
    ToRouter,
    decode_for_router,
    encode,
)
from base.log import kv

log = logging.getLogger(__name__)

#: From one dial to the next.
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
#: At most, while there is nobody: neighbours change to new keys as soon as control is back.
ABSENT_S: Final = 0.2
_BACKLOG_MAX: Final = 256


class ControlLink:
    """Client of control's Unix socket. ``handle`` is called with each message, on this loop."""

    def __init__(self, path: str, handle: Callable[[ToRouter], None]) -> None:
        self._path = path
        self._handle = handle
        self._instance = random.getrandbits(63)
        self._send, self._receive = anyio.create_memory_object_stream[bytes](_BACKLOG_MAX)
        self._connected = False
        self._heard = False

    def emit(self, message: ToControl) -> None:
        """Send an event if control is there; without it events are of no use to anyone."""
        if not self._connected:
            return
        try:
            self._send.send_nowait(encode(message))
        except anyio.WouldBlock:
            log.warning("event for control dropped", extra=kv(reason="backlog full"))

    async def run(self) -> None:
        """Stay connected until cancelled. Who never makes sense is dialled ever later."""
        attempt = 0
        with self._send, self._receive:
            try:
                while True:
                    pause_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                    try:
                        stream = await anyio.connect_unix(self._path)
                    except OSError as err:
                        pause_s = min(pause_s, ABSENT_S)
                        if attempt == len(RETRY_S):
                            log.warning(
                                "control is not there", extra=kv(addr=self._path, err=str(err))
                            )
                    else:
                        if await self._talk(stream):
                            attempt, pause_s = 0, RETRY_S[0]
                    await anyio.sleep(pause_s)
                    attempt += 1
            finally:
                self._connected = False

    async def _talk(self, stream: SocketStream) -> bool:
        """One connection, until it ends; whether control said anything that made sense."""
        self._heard = False
        async with stream:
            await self._serve(stream)
        self._connected = False
        log.warning("control link lost; forwarding goes on", extra=kv(addr=self._path))
        return self._heard

    async def _serve(self, stream: SocketStream) -> None:
        """Until the connection breaks or says something we can't read."""
        while self._receive.statistics().current_buffer_used:
            self._receive.receive_nowait()  # meant for the link before this one
        self._connected = True
        try:
            await stream.send(encode(RouterHello(SCHEMA_VERSION, os.getpid(), self._instance)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, stream)
                await self._read(stream)
                tasks.cancel_scope.cancel()
        except* (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            log.debug("control link broke", extra=kv(addr=self._path))
        except* RemoteProtocolError as group:
            log.error("control link closed", extra=kv(err=str(group.exceptions[0])))

    async def _read(self, stream: SocketStream) -> None:
        reader = MessageReader()
        while True:
            try:
                data = await stream.receive()
            except anyio.EndOfStream:
                return
            for body in reader.feed(data):
                self._handle(decode_for_router(body))
                self._heard = True

    async def _write(self, stream: SocketStream) -> None:
        while True:
            await stream.send(await self._receive.receive())
