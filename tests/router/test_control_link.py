"""The router's end of the control link, against a real Unix socket."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from base.counters import COUNTER_NAMES
from base.errors import RemoteProtocolError
from base.ipc import (
    SCHEMA_VERSION,
    Delta,
    MessageReader,
    NeedSnapshot,
    PathMtuChanged,
    ReportRequest,
    RouterHello,
    RouterReport,
    Snapshot,
    ToControl,
    ToRouter,
    decode_for_control,
    encode,
)
from router import control_link
from router.control_link import ControlLink
from router.daemon import Router
from router.settings import parse
from tests.native.test_udp_io import free_port

pytestmark = pytest.mark.anyio

NAME = b"\xce\0\0\0\0\1"


class Control:
    """The other end: one connection at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._accepted, self._links = anyio.create_memory_object_stream[anyio.abc.SocketStream](9)
        self.dials = 0
        self._ends: list[End] = []

    async def close(self) -> None:
        """Hang up what is still open.

        After the router's end is gone: anyio stumbles on plain asyncio when a read is cancelled
        at the moment when its socket becomes readable.
        """
        for end in self._ends:
            await end.stream.aclose()

    async def listen(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Accept until cancelled."""
        listener = await anyio.create_unix_listener(self.path)
        async with listener, self._accepted, self._links:
            task_status.started()
            await listener.serve(self._accept)

    async def _accept(self, stream: anyio.abc.SocketStream) -> None:
        self.dials += 1
        await self._accepted.send(stream)

    async def link(self) -> End:
        """The next connection."""
        with anyio.fail_after(3):
            self._ends.append(End(await self._links.receive()))
        return self._ends[-1]


class End:
    """Control's end of one connection."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._reader = MessageReader()
        self._bodies: list[bytes] = []

    async def read(self) -> ToControl:
        """The router's next message."""
        with anyio.fail_after(3):
            while not self._bodies:
                self._bodies += self._reader.feed(await self.stream.receive())
        return decode_for_control(self._bodies.pop(0))

    async def hello(self) -> RouterHello:
        message = await self.read()
        assert isinstance(message, RouterHello)
        return message

    async def send(self, message: ToRouter) -> None:
        await self.stream.send(encode(message))

    async def closed(self) -> None:
        """Returns once the router has hung up."""
        with anyio.fail_after(3):
            try:
                while True:
                    self._bodies += self._reader.feed(await self.stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                await self.stream.aclose()


@asynccontextmanager
async def control_at(path: Path) -> AsyncIterator[Control]:
    """A control that listens."""
    control = Control(path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(control.listen)
        yield control
        await control.close()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def dialling(
    path: Path, handle: Callable[[ToRouter], None] = lambda _: None
) -> AsyncIterator[ControlLink]:
    """A router's link that runs."""
    link = ControlLink(str(path), handle)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        yield link
        tasks.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "router.sock"


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await anyio.sleep(0.001)
    pytest.fail("did not happen")


async def test_the_router_says_hello_first(path: Path) -> None:
    async with control_at(path) as control, dialling(path):
        end = await control.link()
        hello = await end.hello()
        assert (hello.schema, hello.pid) == (SCHEMA_VERSION, os.getpid())
        await end.stream.aclose()
        again = await control.link()
        assert (await again.hello()).instance == hello.instance


async def test_messages_are_handled_in_order_however_they_are_cut(path: Path) -> None:
    handled: list[ToRouter] = []
    async with control_at(path) as control, dialling(path, handled.append):
        end = await control.link()
        messages: list[ToRouter] = [Snapshot(1, NAME, "a"), Delta(2), ReportRequest(9), Delta(3)]
        data = b"".join(map(encode, messages))
        for at in range(0, len(data), 7):
            await end.stream.send(data[at : at + 7])
        await until(lambda: len(handled) == 4)
        assert handled == messages


async def test_events_reach_control(path: Path) -> None:
    async with control_at(path) as control, dialling(path) as link:
        end = await control.link()
        await end.hello()
        events = [PathMtuChanged(NAME, 1400 + n, 1500) for n in range(100)]
        for event in events:
            link.emit(event)
        assert [await end.read() for _ in events] == events


async def test_events_without_control_are_of_no_use_to_anyone(path: Path) -> None:
    async with dialling(path) as link:
        for n in range(1000):
            link.emit(PathMtuChanged(NAME, n, n))
        async with control_at(path) as control:
            end = await control.link()
            await end.hello()
            link.emit(PathMtuChanged(NAME, 7, 7))
            assert await end.read() == PathMtuChanged(NAME, 7, 7)


async def test_a_control_that_does_not_read_costs_events_and_not_memory(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with control_at(path) as control, dialling(path) as link:
        end = await control.link()
        await end.hello()
        for n in range(3000):
            link.emit(PathMtuChanged(NAME, n, n))
        assert "event for control dropped" in caplog.text
        first = await end.read()
        assert first == PathMtuChanged(NAME, 0, 0)


async def test_control_may_come_later_and_come_again(path: Path) -> None:
    handled: list[ToRouter] = []
    async with dialling(path, handled.append):
        await anyio.sleep(0.1)
        for seq in range(3):
            async with control_at(path) as control:
                end = await control.link()
                await end.hello()
                await end.send(Snapshot(seq, NAME, "a"))
                await until(lambda want=seq: len(handled) == want + 1)  # type: ignore[misc]
                await end.stream.aclose()
            Path.unlink(path, missing_ok=True)
    assert handled == [Snapshot(seq, NAME, "a") for seq in range(3)]


GARBAGE = {
    "no msgpack": b"\0\0\0\1\xc1",
    "not a message": b"\0\0\0\1\x07",
    "empty": b"\0\0\0\0",
    "length beyond any": b"\xff\xff\xff\xff",
    "the router's own kind": encode(RouterHello(1, 2, 3)),
    "text": b"GET / HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_closes_the_link_and_it_is_dialled_again(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[ToRouter] = []
    async with control_at(path) as control, dialling(path, handled.append):
        end = await control.link()
        await end.stream.send(GARBAGE[what])
        await end.closed()
        assert "control link closed" in caplog.text
        again = await control.link()
        await again.hello()
        await again.send(Delta(5))
        await until(lambda: handled == [Delta(5)])


async def test_a_message_that_contradicts_itself_closes_the_link(path: Path) -> None:
    def refuse(message: ToRouter) -> None:
        raise RemoteProtocolError("control link: nonsense")

    async with control_at(path) as control, dialling(path, refuse):
        end = await control.link()
        await end.send(Delta(1))
        await end.closed()
        await (await control.link()).hello()


async def test_a_control_that_only_talks_nonsense_is_not_dialled_without_pause(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    dials = 0

    async def talk_nonsense(stream: anyio.abc.SocketStream) -> None:
        nonlocal dials
        dials += 1
        async with stream:
            await stream.send(b"\xff" * 4)

    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk_nonsense)
        async with dialling(path):
            await anyio.sleep(0.5)
            Path.unlink(path)
            await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert 2 <= dials <= 6


async def test_after_a_good_message_the_next_dial_is_quick_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_link, "RETRY_S", (0.01, 3600.0))
    handled: list[ToRouter] = []
    async with control_at(path) as control, dialling(path, handled.append):
        for _ in range(4):
            end = await control.link()
            await end.send(Delta(1))
            count = len(handled)
            await until(lambda before=count: len(handled) > before)  # type: ignore[misc]
            await end.stream.aclose()
        await (await control.link()).hello()


async def test_a_control_that_is_not_there_is_never_waited_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_link, "RETRY_S", (0.01, 0.01, 3600.0))
    async with dialling(path):
        await until(lambda: "control is not there" in caplog.text)  # the pause is the longest now
        async with control_at(path) as control:
            await (await control.link()).hello()


# ---- the router behind the link, as far as it gets without a bridge ----


@asynccontextmanager
async def routing(path: Path) -> AsyncIterator[None]:
    """A router that waits for its first snapshot, having touched nothing."""
    settings = parse(
        [f"--control-socket={path}", "--host=127.0.0.1", f"--port={free_port()}", "--bufsz=1"]
    )
    router = Router(settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run)
        yield
        tasks.cancel_scope.cancel()


async def test_a_gap_asks_for_a_snapshot(path: Path) -> None:
    async with control_at(path) as control, routing(path):
        end = await control.link()
        await end.hello()
        await end.send(Delta(5))
        assert await end.read() == NeedSnapshot(-1, 5)


async def test_a_delta_before_any_snapshot_closes_the_link(path: Path) -> None:
    async with control_at(path) as control, routing(path):
        end = await control.link()
        await end.send(Delta(0))
        await end.closed()
        await (await control.link()).hello()


async def test_a_report_holds_every_counter(path: Path) -> None:
    async with control_at(path) as control, routing(path):
        end = await control.link()
        await end.hello()
        await end.send(ReportRequest(77))
        report = await end.read()
        assert isinstance(report, RouterReport)
        assert (report.id, report.seq, report.macs_total) == (77, -1, 0)
        assert tuple(report.counters) == COUNTER_NAMES
