"""Channels: direct when idle, queued when not, in order always; the pool is the only limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from native.datapath import Batch
from router.channel import Channel, Pool


class Recorder:
    """A stage that notes what it was given and does what the test says."""

    def __init__(self, action: Callable[[Batch], bool] = lambda _: True) -> None:
        self.seen: list[Batch] = []
        self.action = action
        self.room = anyio.Event()

    def work(self, batch: Batch) -> bool:
        self.seen.append(batch)
        return self.action(batch)

    async def ready(self) -> None:
        await self.room.wait()
        self.room = anyio.Event()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


def batches(count: int) -> list[Batch]:
    return [Batch() for _ in range(count)]


def test_an_idle_stage_gets_the_batch_at_once() -> None:
    stage = Recorder()
    channel = Channel(stage)
    one, other = batches(2)
    channel.send(one)
    assert stage.seen == [one]
    channel.send(other)
    assert stage.seen == [one, other]
    assert channel.waiting == 0


def test_a_stage_at_work_up_the_stack_gets_it_afterwards() -> None:
    one, two, three = batches(3)
    depth: list[int] = []
    running = 0

    def send_back(batch: Batch) -> bool:
        nonlocal running
        running += 1
        depth.append(running)
        if batch is one:
            channel.send(two)
            channel.send(three)
            assert stage.seen == [one], "entered twice"
            assert channel.waiting == 2
        running -= 1
        return True

    stage = Recorder(send_back)
    channel = Channel(stage)
    channel.send(one)
    assert stage.seen == [one, two, three]
    assert depth == [1, 1, 1]


def test_two_channels_that_feed_each_other_do_not_recurse() -> None:
    count = 0

    def pass_to_second(batch: Batch) -> bool:
        second.send(batch)
        return True

    def pass_to_first(batch: Batch) -> bool:
        nonlocal count
        count += 1
        if count < 5000:
            first.send(batch)
        return True

    first, second = Channel(Recorder(pass_to_second)), Channel(Recorder(pass_to_first))
    first.send(Batch())
    assert count == 5000


def test_a_stage_that_fails_lets_the_caller_know_and_works_again() -> None:
    def fail(batch: Batch) -> bool:
        raise ValueError("broken")

    stage = Recorder(fail)
    channel = Channel(stage)
    with pytest.raises(ValueError, match="broken"):
        channel.send(Batch())
    stage.action = lambda _: True
    channel.send(Batch())
    assert len(stage.seen) == 2


def test_a_blocked_stage_is_left_alone_and_the_queue_keeps_its_order() -> None:
    stage = Recorder(lambda _: False)
    channel = Channel(stage)
    some = batches(3)
    for batch in some:
        channel.send(batch)
    assert stage.seen == some[:1]
    assert channel.waiting == 3


@pytest.mark.anyio
async def test_a_blocked_stage_goes_on_where_it_was() -> None:
    refusals = 2

    def refuse_twice(batch: Batch) -> bool:
        nonlocal refusals
        if batch is some[1] and refusals:
            refusals -= 1
            return False
        return True

    some = batches(4)
    stage = Recorder(refuse_twice)
    channel = Channel(stage)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.serve)
        for batch in some:
            channel.send(batch)
        assert stage.seen == some[:2]
        await settle()
        assert stage.seen == some[:2], "offered again before the stage was ready"
        stage.room.set()
        await settle()
        assert stage.seen == [some[0], some[1], some[1]]
        assert channel.waiting == 3
        late = Batch()
        channel.send(late)
        stage.room.set()
        await settle()
        assert stage.seen == [some[0], some[1], some[1], some[1], some[2], some[3], late]
        assert channel.waiting == 0
        channel.send(some[0])
        assert stage.seen[-1] is some[0]
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_stage_that_blocks_again_and_again_loses_nothing() -> None:
    stage = Recorder()
    accepted: list[Batch] = []
    turn = 0

    def every_third(batch: Batch) -> bool:
        nonlocal turn
        turn += 1
        if turn % 3 == 0:
            return False
        accepted.append(batch)
        return True

    stage.action = every_third
    channel = Channel(stage)
    some = batches(50)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.serve)
        for number, batch in enumerate(some):
            channel.send(batch)
            if number % 7 == 0:
                stage.room.set()
                await settle()
        with anyio.fail_after(2):
            while len(accepted) < len(some):
                stage.room.set()
                await settle()
        tasks.cancel_scope.cancel()
    assert accepted == some


@pytest.mark.anyio
async def test_a_stage_that_blocked_before_anybody_served_it() -> None:
    stage = Recorder(lambda _: False)
    channel = Channel(stage)
    batch = Batch()
    channel.send(batch)
    stage.action = lambda _: True
    stage.room.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.serve)
        await settle()
        tasks.cancel_scope.cancel()
    assert stage.seen == [batch, batch]


# ---- the pool ----


def test_the_pool_gives_what_it_has_and_then_nothing() -> None:
    pool = Pool(3)
    assert (pool.size, pool.free) == (3, 3)
    taken = [pool.take() for _ in range(4)]
    assert taken[3] is None
    assert len(set(map(id, taken[:3]))) == 3
    assert pool.free == 0


def test_the_warmest_batch_comes_first() -> None:
    pool = Pool(3)
    one, two = pool.take(), pool.take()
    assert one is not None
    assert two is not None
    pool.give(one)
    assert pool.take() is one
    pool.give(one)
    pool.give(two)
    assert pool.take() is two


def test_only_an_empty_pool_announces_a_refill() -> None:
    pool = Pool(2)
    calls = []
    pool.on_refill = lambda: calls.append(pool.free)
    one, two = pool.take(), pool.take()
    assert one is not None
    assert two is not None
    pool.give(one)
    pool.give(two)
    assert calls == [1]
    assert pool.take() is two
    pool.give(two)
    assert calls == [1]
