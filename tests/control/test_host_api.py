"""``/expose`` over HTTP and the commands on top of it, with a real bridge underneath."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio
import anyio.to_thread
import httpx

from control.addresses import EXPOSE_IDENT
from control.api.app import Tenants, build_app
from control.api.server import ApiServer
from control.host.service import HostService, HostSettings
from control.http_addr import listen_all
from tests.control.fake_addresses import FakeAddresses
from tests.control.netns_host import in_netns, rule_comments, sh, until
from tests.control.processes import weft
from tests.control.views import node, sample

BRIDGE = "ip link add weave type bridge; ip link set weave up"


class Node:
    """A served host: HTTP client, commands, and what is behind them."""

    def __init__(self, host: HostService, addresses: FakeAddresses, path: Path) -> None:
        self.host = host
        self.addresses = addresses
        self.path = path
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://weft", timeout=20)

    async def weft(self, *words: str) -> CompletedProcess[str]:
        """Run a command against this node."""
        return await anyio.to_thread.run_sync(lambda: weft(*words, "--http-addr", str(self.path)))


@asynccontextmanager
async def served(addresses: FakeAddresses | None = None) -> AsyncIterator[Node]:
    sh(BRIDGE)
    addresses = addresses or FakeAddresses()
    host = HostService(HostSettings(), addresses)

    async def observe(_: int) -> Any:
        return replace(node(), host=host.view())

    app = build_app(observe, Tenants(host=host))
    with contextlib.ExitStack() as held:
        path = Path(held.enter_context(tempfile.TemporaryDirectory())) / "api.sock"
        sockets = listen_all(str(path), held)
        server = ApiServer(app)
        async with anyio.create_task_group() as tasks:
            await tasks.start(host.run)
            tasks.start_soon(server.serve, sockets)
            found = Node(host, addresses, path)
            async with found.client:
                yield found
            server.stop()
            tasks.cancel_scope.cancel()


def on_bridge() -> set[str]:
    return {line.split()[3] for line in sh("ip -o -4 addr show dev weave").splitlines()}


@in_netns
async def test_as_the_original_answers() -> None:
    path = "/expose/10.32.0.200/16"
    vector = sample(path, "POST")
    async with served() as it:
        for _ in range(2):
            answer = await it.client.post(path)
            assert (answer.status_code, answer.text) == (vector["status"], vector["body"])
        assert on_bridge() == {"10.32.0.200/16"}
        assert "masquerade to 10.32.0.0/16" in rule_comments("ip", "weave")
        for _ in range(2):
            answer = await it.client.delete(path)
            assert (answer.status_code, answer.text) == (204, "")
        assert on_bridge() == set()


@in_netns
async def test_skip_nat() -> None:
    async with served() as it:
        assert (await it.client.post("/expose/10.2.0.1/16?skipNAT=true")).status_code == 204
        assert "exposed 10.2.0.0/16" in rule_comments("ip", "weave")
        assert "masquerade to 10.2.0.0/16" not in rule_comments("ip", "weave")
        found = (await it.client.get("/expose")).json()
        assert found == [{"Address": "10.2.0.1/16", "Masquerade": False}]
        for text, code in (("1", 204), ("F", 204), ("junk", 400), ("", 204)):
            answer = await it.client.post("/expose/10.2.0.1/16", params={"skipNAT": text})
            assert answer.status_code == code, text


@in_netns
async def test_specs() -> None:
    async with served() as it:
        form = {"addr": ["10.2.0.1/16", "net:default"], "skipNAT": "true"}
        answer = await it.client.post("/expose", data=form)
        assert (answer.status_code, answer.text) == (200, "10.2.0.1/16 10.32.0.1/12")
        answer = await it.client.post("/expose", headers={"Accept": "application/json"})
        assert answer.json() == ["10.32.0.1/12"]
        answer = await it.client.delete("/expose?addr=10.2.0.1/16&addr=net:default")
        assert answer.text == "10.2.0.1/16 10.32.0.1/12"
        assert (await it.client.delete("/expose")).text == ""
        assert it.addresses.held[EXPOSE_IDENT] == []


_UNPARSED = "unable to parse ip addr: invalid"


@in_netns
async def test_what_is_refused() -> None:
    addresses = FakeAddresses()
    await addresses.allocate("somebody")
    async with served(addresses) as it:
        for method, path, status, words in (
            ("POST", "/expose/10.2.0.1/33", 400, f"{_UNPARSED} CIDR address: 10.2.0.1/33\n"),
            (
                *("POST", "/expose/fe80::1/64", 400),
                f"{_UNPARSED} Non-IPv4 address not supported: fe80::1/64\n",
            ),
            ("POST", "/expose/10.2.0.1/x", 400, f"{_UNPARSED} CIDR address: 10.2.0.1/x\n"),
            ("POST", "/expose/zz:1/64", 400, f"{_UNPARSED} CIDR address: zz:1/64\n"),
            ("POST", "/expose/127.0.0.1/24", 400, "is no address of a host"),
            (
                *("POST", "/expose/10.2.0.1/16?skipNAT=maybe", 400),
                'option: strconv.ParseBool: parsing "maybe": invalid syntax\n',
            ),
            ("POST", "/expose?addr=net:10.2.0.1/16", 400, "has bits of a host"),
            ("POST", "/expose?color=red", 400, "unknown field 'color'"),
            ("POST", "/expose?addr=10.32.0.1/12", 400, "in use by somebody"),
            ("DELETE", "/expose?addr=%1b", 400, "has no prefix length"),
            ("PUT", "/expose", 405, ""),
        ):
            answer = await it.client.request(method, path)
            assert answer.status_code == status, path
            assert words in answer.text, answer.text
            assert answer.text.removesuffix("\n").isprintable()
        sh("ip link delete weave")
        answer = await it.client.post("/expose/10.2.0.1/16")
        assert (answer.status_code, "no such bridge" in answer.text) == (503, True)
        assert on_bridge_or_nothing() == ""


def on_bridge_or_nothing() -> str:
    return sh("ip -o link show weave 2>/dev/null || true")


class Patient(FakeAddresses):
    """Without consensus."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.consensus = anyio.Event()

    async def allocate(self, *args: Any, **kwargs: Any) -> Any:
        self.waiting += 1
        try:
            await self.consensus.wait()
        finally:
            self.waiting -= 1
        return await super().allocate(*args, **kwargs)


@in_netns
async def test_who_leaves_withdraws() -> None:
    addresses = Patient()
    async with served(addresses) as it:
        with anyio.move_on_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(it.client.post, "/expose")
                await until(lambda: addresses.waiting == 1, "it waits")
                # what needs no allocation goes on meanwhile
                assert (await it.client.post("/expose?addr=10.2.0.1/16")).status_code == 200
                assert (await it.client.delete("/expose?addr=10.2.0.1/16")).status_code == 200
                assert (await it.client.delete("/expose")).status_code == 200
                tasks.cancel_scope.cancel()
        await until(lambda: addresses.waiting == 0, "withdrawn")
        assert on_bridge() == set()


@in_netns
async def test_commands() -> None:
    async with served() as it:
        done = await it.weft("expose", "10.2.0.1/16", "net:10.3.0.0/16", "-h", "a.weave.local")
        assert (done.returncode, done.stdout) == (0, "10.2.0.1 10.3.0.1\n")
        assert done.stderr == "weft: -h has no effect: names are not served yet\n"
        done = await it.weft("expose", "--without-masquerade")
        assert done.stdout == "10.32.0.1\n"
        assert [each.masquerade for each in it.host.exposed] == [True, True, False]
        done = await it.weft("expose", "--json")
        assert json.loads(done.stdout) == ["10.32.0.1/12"]
        done = await it.weft("hide", "10.2.0.1/16", "net:default")
        assert (done.returncode, done.stdout) == (0, "10.2.0.1 10.32.0.1\n")
        done = await it.weft("hide")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert on_bridge() == {"10.3.0.1/16"}


@in_netns
async def test_commands_that_fail() -> None:
    async with served() as it:
        for command in ("expose", "hide"):
            done = await it.weft(command, "10.2.0.1")
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("weft: address: '10.2.0.1' has no prefix length; ")
            assert done.stderr.count("\n") == 1
        await it.addresses.allocate("somebody")
        done = await it.weft("expose", "10.32.0.1/12")
        assert (done.returncode, done.stderr) == (1, "weft: 10.32.0.1/12 is in use by somebody\n")


def test_commands_without_a_node(tmp_path: Path) -> None:
    for command in ("expose", "hide"):
        done = weft(command, "--http-addr", str(tmp_path / "none.sock"))
        assert done.returncode == 1
        assert "no node is launched here" in done.stderr
        done = weft(command, "--help")
        assert (done.returncode, "Examples:" in done.stdout) == (0, True)


@in_netns
async def test_metrics() -> None:
    async with served() as it:
        await it.client.post("/expose/10.2.0.1/16")
        sh("nft delete table ip weave")
        await until(lambda: it.host.view().counters["restored"] == 1, "restored")
        text = (await it.client.get("/metrics")).text
        assert "\nweft_host_restored_total 1\n" in text
        assert "\nweft_exposed_addresses 1\n" in text
