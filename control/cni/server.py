"""The socket that stubs come to: one request, one answer, then it is over.

A runtime that gives up kills its stub. An ADD that nobody waits for any more is withdrawn and what
it made is undone; a DEL goes on.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import SocketListener, SocketStream, TaskStatus, UNIXSocketStream

from base.errors import RemoteProtocolError
from base.log import kv
from control.cni.dispatch import Dispatcher
from control.cni.wire import (
    LENGTH_LEN,
    Answer,
    Request,
    decode_request,
    encode_answer,
    request_length,
)

#: A stub has its request whole when it connects.
_REQUEST_TIMEOUT_S: Final = 10
_CHUNK_LEN: Final = 1 << 16

log = logging.getLogger(__name__)


class CniServer:
    """Serves a dispatcher; must run on asyncio."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def serve(
        self, listener: SocketListener, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        task_status.started()
        await listener.serve(self._serve_stream)

    async def _serve_stream(self, stream: SocketStream) -> None:
        if not isinstance(stream, UNIXSocketStream):
            raise TypeError("CNI calls come over a Unix socket")
        fds: list[int] = []
        try:
            async with stream:
                with anyio.fail_after(_REQUEST_TIMEOUT_S):
                    request = await _receive(stream, fds)
                answer = await self._answer(stream, request, fds[0] if fds else None)
                if answer is not None:
                    await stream.send(encode_answer(answer))
        except RemoteProtocolError as err:
            log.warning("not a CNI call", extra=kv(err=err))
        except (anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError):
            log.debug("a CNI caller is gone")
        finally:
            for fd in fds:
                os.close(fd)

    async def _answer(
        self, stream: UNIXSocketStream, request: Request, netns_fd: int | None
    ) -> Answer | None:
        """The answer; None when the caller went away before there was one."""
        if request.variables.get("CNI_COMMAND") == "DEL":
            return await self._dispatcher.handle(request, netns_fd)
        answer: Answer | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    await stream.receive(1)
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            answer = await self._dispatcher.handle(request, netns_fd)
            tasks.cancel_scope.cancel()
        return answer


async def _receive(stream: UNIXSocketStream, fds: list[int]) -> Request:
    """A whole request; its descriptors into ``fds``, which the caller closes.

    Raises:
        RemoteProtocolError: it is none.
        anyio.EndOfStream, anyio.BrokenResourceError: the caller is gone.
    """
    data, received = await stream.receive_fds(_CHUNK_LEN, 1)
    fds += received
    while len(data) < LENGTH_LEN:
        data += await stream.receive(_CHUNK_LEN)
    length = request_length(data)
    parts = [data[LENGTH_LEN:]]
    missing = length - len(parts[0])
    while missing > 0:
        parts.append(await stream.receive(min(missing, _CHUNK_LEN)))
        missing -= len(parts[-1])
    if missing < 0:
        raise RemoteProtocolError("more than a request")
    return decode_request(b"".join(parts))
