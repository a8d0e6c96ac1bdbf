"""What a user or a host can get wrong: one clear line, exit code 1, nothing changed on the host.

Each case runs ``weft launch`` and, where it applies, ``weft router`` as well. Log records may stand
before the line; everything of the host that ``ip`` can tell is compared before and after.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import PurePath
from typing import Any

import pytest

from lab.host import Host, weft_argv, weft_environment
from lab.lab import Lab
from lab.process import Completed
from tests.netns.support import Pinging, netns, picture

pytestmark = [*netns(120), pytest.mark.patient]

PORT = 6783
#: Time, level, logger, message: see base/log.py.
_LOG_RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (DEBUG|INFO|WARNING) ")
#: Drops two privileges of root and keeps everything else.
_UNPRIVILEGED = ("setpriv", "--inh-caps", "-all", "--bounding-set", "-net_admin,-net_raw")
_BLIND = ("setpriv", "--inh-caps", "-all", "--bounding-set", "-dac_override,-dac_read_search")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """A host on which nothing of ours has ever run."""
    async with Lab(1) as lab:
        yield lab.hosts[0]


async def _run(host: Host, *options: str, before: tuple[str, ...] = ()) -> Completed:
    argv = [*before, *host.launch_argv(), *options]
    return await host.run(*argv, check=False, env=weft_environment(), timeout_s=15.0)


def _the_line(done: Completed) -> str:
    """The one line that the user gets to read."""
    said = done.stderr.splitlines()
    lines = [line for line in said if line and not _LOG_RECORD.match(line)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("weft: "), done.stderr
    assert done.returncode == 1
    assert done.stdout == ""
    return lines[0]


async def _refused(host: Host, *options: str, complaint: str, before: tuple[str, ...] = ()) -> None:
    host_before: tuple[Any, Any] = await picture(host)
    line = _the_line(await _run(host, *options, before=before))
    assert re.search(complaint, line), line
    assert await picture(host) == host_before
    for name in ("router.sock", "weave.sock"):
        assert not (host.run_path / name).exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(("--bogus",), "--bogus", id="unknown-option"),
        pytest.param(("--mtu", "many"), "--mtu.*many", id="mtu-no-number"),
        pytest.param(("--mtu", "100"), "--mtu.*576", id="mtu-too-small"),
        pytest.param(("--mtu", "65536"), "--mtu.*65535", id="mtu-too-large"),
        pytest.param(("--capture", "magic"), "--capture.*tap, packet", id="capture"),
        pytest.param(("--loops", "three"), "--loops", id="loops"),
        pytest.param(("--port", "0"), "--port", id="port"),
        pytest.param(("--weave-bridge", "a-name-longer-than-15"), "--weave-bridge", id="bridge"),
        pytest.param(("--host", "fd00::1"), "--host.*IPv4", id="host-ipv6"),
        pytest.param(("--host", "10.99.0.77"), "--host.*10.99.0.77", id="host-not-local"),
        pytest.param(("--nickname", "nobody"), "--nickname.*nobody", id="nickname"),
        pytest.param(("--name", "ce:07:00:00:00:07"), "--name.*ce:07", id="name"),
        pytest.param(("--http-addr", "nowhere"), "--http-addr", id="http-addr"),
        pytest.param(("--control-socket", "/proc/version/x"), "--control-socket", id="socket"),
        pytest.param(("--log-level", "loud"), "--log-level", id="log-level"),
    ],
)
async def test_wrong_option(host: Host, options: tuple[str, ...], complaint: str) -> None:
    await _refused(host, *options, complaint=complaint)


@pytest.mark.parametrize("capture", ["tap", "packet"])
async def test_missing_privilege(host: Host, capture: str) -> None:
    await _refused(
        host,
        "--capture",
        capture,
        complaint="permission denied.*root",
        before=_UNPRIVILEGED,
    )


@pytest.mark.parametrize(
    ("existing", "capture", "complaint"),
    [
        pytest.param(
            "link add vethwe-bridge type veth peer name other",
            "tap",
            "vethwe-bridge.*veth.*--adopt",
            id="port-is-a-veth",
        ),
        pytest.param(
            "link add vethwe-bridge type bridge", "tap", "vethwe-bridge", id="port-is-a-bridge"
        ),
        pytest.param("link add vethwe-bridge type bridge", "packet", "vethwe-bridge", id="no-veth"),
        pytest.param(
            "tuntap add vethwe-bridge mode tap", "packet", "tun.*veth", id="port-is-a-tap"
        ),
        pytest.param(
            "tuntap add vethwe-bridge mode tun", "tap", "vethwe-bridge", id="port-is-a-tun"
        ),
        pytest.param(
            "tuntap add vethwe-bridge mode tap multi_queue",
            "tap",
            "vethwe-bridge.*delete",
            id="multi-queue-tap",
        ),
        pytest.param(
            "link add weave type veth peer name other", "tap", "weave.*bridge", id="no-bridge"
        ),
        pytest.param("link add datapath type bridge", "tap", "datapath.*reset", id="datapath"),
    ],
)
async def test_foreign_device(host: Host, existing: str, capture: str, complaint: str) -> None:
    host.ip(existing)
    await _refused(host, "--capture", capture, complaint=complaint)


async def test_port_of_another_bridge(host: Host) -> None:
    host.ip(
        "link add elsewhere type bridge",
        "tuntap add vethwe-bridge mode tap",
        "link set vethwe-bridge master elsewhere",
    )
    await _refused(host, complaint="vethwe-bridge.*elsewhere")


@pytest.mark.parametrize("address", ["10.99.0.1", "0.0.0.0"], ids=["same-address", "any-address"])
async def test_port_in_use(host: Host, address: str) -> None:
    with host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind((address, PORT))
        await _refused(host, complaint=f"--port.*{PORT}.*in use")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(None, "--static.*no such file", id="missing"),
        pytest.param("[[peer]\n", r"--static.*:1: ", id="no-toml"),
        pytest.param('[[peer]]\nname = "h1"\naddress = "10.99.0.1"\n', r":2: .*h1", id="bad-name"),
        pytest.param(
            '[[peer]]\nname = "ce:01:00:00:00:01"\naddress = "host"\n', r":3: .*IPv4", id="address"
        ),
        pytest.param(
            '[[peer]]\nname = "ce:01:00:00:00:01"\naddress = "10.99.0.1"\ncolour = "red"\n',
            r":4: .*colour",
            id="unknown-key",
        ),
    ],
)
async def test_peers_file(host: Host, text: str | None, complaint: str) -> None:
    if text is None:
        (host.run_path / "peers.toml").unlink()
    else:
        host.write_peers(text)
    await _refused(host, complaint=complaint)


async def test_unreadable_peers_file(host: Host) -> None:
    (host.run_path / "peers.toml").chmod(0)
    await _refused(
        host,
        complaint="--static.*(not readable|cannot be read)",
        before=_BLIND,
    )


async def test_second_router_on_one_host() -> None:
    """With the same folder, with another, with another port: the first is not disturbed."""
    async with Lab(2) as lab:
        await lab.start_weft()
        host = lab.hosts[0]
        one, other = lab.containers
        before = await picture(host)
        folder = PurePath(host.control_socket).parent / "second"
        elsewhere = ("--control-socket", str(folder / "router.sock"), "--http-addr", "")
        async with Pinging(one, other) as ping:
            for options, complaint in (
                ((), r"already running \(pid \d+\); stop it with weft stop"),
                (elsewhere, f"--port.*{PORT}.*in use"),
                ((*elsewhere, "--port", "7000"), "vethwe-bridge.*another router"),
                ((*elsewhere, "--port", "7000", "--capture", "packet"), "vethwe-bridge.*tun"),
                (
                    (*elsewhere, "--port", "7000", "--weave-bridge", "second"),
                    "vethwe-bridge.*weave.*router",
                ),
            ):
                line = _the_line(await _run(host, *options))
                assert re.search(complaint, line), line
                assert await picture(host) == before
        assert ping.missing == []
        assert (await host.report())["Ready"]


async def test_router_alone(host: Host) -> None:
    """``weft router`` says the same; it looks at the host before it waits for control."""
    host.ip("link add datapath type bridge")
    before = await picture(host)
    for options, complaint in (
        (("--mtu", "many"), "--mtu"),
        (("--host", "10.99.0.77"), "--host"),
        ((), "datapath"),
    ):
        argv = [*weft_argv(), "router", "--control-socket", host.control_socket, *options]
        done = await host.run(*argv, check=False, env=weft_environment(), timeout_s=15.0)
        assert complaint in _the_line(done)
        assert await picture(host) == before


async def test_command_line_without_a_node(host: Host) -> None:
    for command in ("status", "report"):
        argv = [*weft_argv(), command, "--http-addr", host.http_socket]
        done = await host.run(*argv, check=False, env=weft_environment())
        assert "weft launch" in _the_line(done)


async def test_a_clean_stop_leaves_no_socket(host: Host) -> None:
    with ExitStack() as stack:
        await host.start_weft(attach=False)
        assert host.weft is not None
        stack.callback(host.weft.close)
        assert await host.weft.stop() == 0
    # The lock's file stays, unlocked: removing it would let two launches hold two files.
    left = sorted(path.name for path in host.run_path.iterdir())
    assert left == ["launch.lock", "notify.sock", "peers.toml"]
    host.weft = None
