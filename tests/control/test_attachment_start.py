"""The start: what is found again, released, taken over, mended; crashes between any two steps."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cni.attach import Attacher
from cni.netns import Netns
from control import attachment_start
from control.attaching import Attaching
from control.attachment_book import AttachmentBook
from control.attachment_store import AttachmentStore
from tests.cni.wires import (
    addresses_in,
    answers,
    links_here,
    links_in,
    make_bridge,
    new_netns,
)
from tests.control.attached_node import BRIDGE_ADDRESS, on_a_host, running, until


def ip(*words: str, fds: tuple[int, ...] = ()) -> None:
    subprocess.run(["ip", *words], check=True, pass_fds=fds)


@on_a_host
async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    with new_netns() as one, new_netns() as other:
        async with running(tmp_path) as node:
            await node.attach("c1", one, "net:default", "192.168.7.1/24")
            await node.attach("c2", other)
            before = node.attachments.records
        async with running(tmp_path) as node:
            assert node.attachments.records == before
            assert answers(one, "10.32.1.2")
            await node.clean()
            with new_netns() as third:
                made = await node.attach("c3", third)
                assert [str(each) for each in made.addresses] == ["10.32.1.3/24"]


@on_a_host
async def test_containers_that_went_meanwhile_are_released(tmp_path: Path) -> None:
    """Node specification 13, row 370."""
    with new_netns() as one:
        async with running(tmp_path) as node:
            await node.attach("c1", one)
            with new_netns() as other:
                await node.attach("c2", other, "net:default", "192.168.7.1/24")
            # namespaces are taken apart a moment after the last has left them
            await until(lambda: len(links_here()) == 3)
        async with running(tmp_path) as node:
            assert [record.container for record in node.attachments.records] == ["c1"]
            assert node.owned() == {"c1": ["10.32.1.1/24"]}
            assert node.store.load() == node.attachments.records
            await node.clean()


def lose(folder: Path) -> None:
    for file in folder.glob("weft-data.db*"):
        file.unlink()


@on_a_host
async def test_a_lost_state_file(tmp_path: Path) -> None:
    """Node specification 13, row 320: addresses in use are claimed back, not given away."""
    with new_netns() as one, new_netns() as other:
        async with running(tmp_path) as node:
            await node.attach("c1", one, "net:default", "net:10.32.2.0/24", "192.168.7.1/24")
            await node.attach("c1", one, "net:10.32.3.0/24", ifname="net1")
        lose(tmp_path)
        async with running(tmp_path) as node:
            first, second = node.attachments.records
            assert (first.container, first.ifname) == ("c1", "ethwe")
            assert [str(each) for each in first.addresses] == addresses_in(one)
            assert (second.ident, second.ifname) == ("c1:net1", "net1")
            made = await node.attach("c2", other)
            assert [str(each) for each in made.addresses] == ["10.32.1.2/24"]
            await node.clean()
            assert len(await node.detach("c1", everything=True)) == 3
            assert links_in(one) == {"lo", "net1"}
            await node.clean()


@on_a_host
async def test_allocation_off_for_a_while(tmp_path: Path) -> None:
    with new_netns() as one:
        async with running(tmp_path) as node:
            await node.attach("c1", one)
        async with running(tmp_path, ipam=False) as node:
            assert [str(each) for each in node.attachments.records[0].addresses] == ["10.32.1.1/24"]
            await node.clean()
        async with running(tmp_path) as node:
            assert node.owned() == {"c1": ["10.32.1.1/24"]}
            await node.clean()


@on_a_host
async def test_a_bridge_made_anew(tmp_path: Path) -> None:
    with new_netns() as one:
        async with running(tmp_path) as node:
            await node.attach("c1", one)
            ip("link", "del", "weave")
            problems = (await node.audit()).problems
            assert "c1 ethwe: bridge weave is missing" in problems
            make_bridge("weave", BRIDGE_ADDRESS)
            assert len(await attachment_start.mend(node.attachments)) == 1
            assert answers(one, "10.32.1.254")
            await node.clean()
            ip("link", "del", "weave")
        make_bridge("weave", BRIDGE_ADDRESS)
        async with running(tmp_path) as node:
            node.containers.mend_soon()

            async def mended() -> bool:
                return not (await node.audit()).problems

            await until(mended)
            assert answers(one, "10.32.1.254")


@on_a_host
async def test_what_others_made_is_left(tmp_path: Path) -> None:
    make_bridge("blue")
    ip("link", "add", "vethweplmine", "type", "veth", "peer", "name", "other1")
    ip("link", "set", "vethweplmine", "master", "weave")
    ip("link", "add", "vethwepl0000002", "type", "veth", "peer", "name", "other2")
    ip("link", "set", "vethwepl0000002", "master", "blue", "alias", "c9 ethwe")
    before = links_here()
    async with running(tmp_path) as node:
        assert links_here() == before
        found = await node.audit()
        assert found.notes == ["interface vethweplmine does not say whose it is"]
        assert found.leaks == []


@on_a_host
async def test_a_container_that_weave_net_attached(tmp_path: Path) -> None:
    """A node replaced in place: its address is not given to others, and comes back on detach."""
    with new_netns() as one, new_netns() as other:
        fd = one.fileno()
        far = ("peer", "name", "eth0", "netns", f"/proc/self/fd/{fd}")
        ip("link", "add", "vethwepl0123456", "type", "veth", *far, fds=(fd,))
        ip("link", "set", "vethwepl0123456", "master", "weave", "up")
        one.run(lambda: ip("addr", "add", "10.32.1.1/24", "dev", "eth0"))
        one.run(lambda: ip("link", "set", "eth0", "up"))
        for _ in range(2):
            async with running(tmp_path) as node:
                (record,) = node.attachments.records
                assert (record.container, record.ifname) == ("vethwepl0123456", "eth0")
                assert node.owned() == {"vethwepl0123456": ["10.32.1.1/24"]}
                await node.clean()
        async with running(tmp_path) as node:
            found = await node.attach("c1", other)
            assert [str(each) for each in found.addresses] == ["10.32.1.2/24"]
            assert await node.detach("0123456789abcdef", ifname="eth0", everything=True) == [
                "10.32.1.1/24"
            ]
            assert links_in(one) == {"lo"}
            assert node.owned() == {"c1": ["10.32.1.2/24"]}
            await node.clean()


# ---- crashes ----


class Killed(BaseException):
    """The process is gone: whatever would be done afterwards is not."""


Call = Callable[..., Any]


class Crash:
    """Dies behind the call number ``at`` of those that it is wrapped around."""

    def __init__(self) -> None:
        self.at = self.calls = 0

    def behind(self, function: Call) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._count()
            return result

        return call

    def behind_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            self._count()
            return result

        return call

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Killed


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Crash:
    made = Crash()

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(Attaching, "_undo", nothing)
    blocking: tuple[tuple[type, str], ...] = (
        (AttachmentStore, "put"),
        (AttachmentStore, "delete"),
        (Attacher, "attach"),
        (Attacher, "detach"),
        (Attacher, "remove_addresses"),
    )
    waiting: tuple[tuple[type, str], ...] = (
        (Attaching, "_obtain_one"),
        (AttachmentBook, "release"),
    )
    for owner, name in blocking:
        monkeypatch.setattr(owner, name, made.behind(getattr(owner, name)))
    for owner, name in waiting:
        monkeypatch.setattr(owner, name, made.behind_async(getattr(owner, name)))
    return made


@on_a_host
async def test_killed_anywhere_in_an_attach(tmp_path: Path, crash: Crash) -> None:
    for step in range(1, 20):
        with new_netns() as one:
            crash.at, crash.calls = step, 0
            died = False
            async with running(tmp_path) as node:
                try:
                    await node.attach("c1", one, "net:default", "net:10.32.2.0/24")
                except Killed:
                    died = True
            crash.at = 0
            async with running(tmp_path) as node:
                await node.clean()
                whole = links_in(one) == {"lo", "ethwe"}
                assert len(node.attachments.records) == int(whole), step
                assert bool(node.owned()) == whole, step
                assert node.store.load() == node.attachments.records
                await node.detach("c1", everything=True)
                await node.clean()
        if not died:
            break
    # two records, two addresses, the pair
    assert step == 6


@on_a_host
async def test_killed_anywhere_while_adding(tmp_path: Path, crash: Crash) -> None:
    for step in range(1, 20):
        with new_netns() as one:
            crash.at = 0
            died = False
            async with running(tmp_path) as node:
                await node.attach("c1", one)
                crash.at, crash.calls = step, 0
                try:
                    await node.attach("c1", one, "net:10.32.2.0/24")
                except Killed:
                    died = True
            crash.at = 0
            async with running(tmp_path) as node:
                await node.clean()
                (record,) = node.attachments.records
                assert [str(each) for each in record.addresses] == addresses_in(one), step
                assert addresses_in(one)[0] == "10.32.1.1/24"
                await node.detach("c1", everything=True)
        if not died:
            break
    assert step == 5


@on_a_host
async def test_killed_anywhere_in_a_detach(tmp_path: Path, crash: Crash) -> None:
    for specs in ((), ("net:default",)):
        for step in range(1, 20):
            with new_netns() as one:
                crash.at = 0
                died = False
                async with running(tmp_path) as node:
                    with Netns.open(f"/proc/self/fd/{one.fileno()}") as named:
                        await node.attach("c1", named, "net:default", "net:10.32.2.0/24")
                    crash.at, crash.calls = step, 0
                    try:
                        await node.detach("c1", *specs, everything=not specs)
                    except Killed:
                        died = True
                crash.at = 0
                async with running(tmp_path) as node:
                    await node.clean()
                    for record in node.attachments.records:
                        texts = [str(each) for each in record.addresses]
                        assert texts == addresses_in(one), step
                    await node.detach("c1", everything=True)
                    await node.clean()
            if not died:
                break
        assert step > 3
