"""``weft attach``, ``detach``, ``ps``, ``audit`` and the API under them, against a real daemon.

Host and daemon are in the test's own namespace, from which every process here is started.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from control.cli.main import main
from tests.cni.wires import (
    addresses_in,
    answers,
    links_here,
    links_in,
    make_bridge,
    new_netns,
    routes_in,
)
from tests.control.processes import Running, until
from tests.native.namespace import in_new_netns

BRIDGE_ADDRESS = "10.32.1.254/16"
ALLOCATE = ("--ipalloc-init", "consensus=1", "--ipalloc-default-subnet", "10.32.1.0/24")


def weft(*words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, in this process: that saves half a second."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        code = main(list(words))
    return code, said.getvalue(), error.getvalue()


class Daemon(Running):
    """``weft control`` with a state file in ``folder``."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.api = folder / "weave.sock"
        argv = ["-m", "control.cli", "control", "--name", "ce:01:00:00:00:01"]
        argv += ["--control-socket", str(folder / "router.sock")]
        argv += ["--http-addr", f"{self.api},127.0.0.1:6784"]
        argv += ["--db-prefix", str(folder / "weft-")]
        super().__init__(folder, [*argv, *(more or ALLOCATE)])
        try:
            self.until_told("READY=1")
        except BaseException:
            self.close()
            raise

    def says(self, *words: str) -> str:
        """Output of a command that succeeds."""
        code, said, error = weft(*words, "--http-addr", str(self.api))
        assert (code, error) == (0, ""), error
        return said

    def refuses(self, *words: str) -> str:
        """The one line of a command that fails."""
        code, said, error = weft(*words, "--http-addr", str(self.api))
        assert (code, said) == (1, "")
        (line,) = error.splitlines()
        return line

    @contextmanager
    def client(self, *, tcp: bool = False) -> Iterator[httpx.Client]:
        transport = None if tcp else httpx.HTTPTransport(uds=str(self.api))
        base = "http://127.0.0.1:6784" if tcp else "http://weft"
        with httpx.Client(
            transport=transport, base_url=base, timeout=20, trust_env=False
        ) as client:
            yield client


def holder(netns_fd: int) -> subprocess.Popen[bytes]:
    """A process inside; it is a container as far as anybody can see."""
    return subprocess.Popen(["sleep", "600"], pass_fds=[netns_fd])


@in_new_netns
@pytest.mark.timeout(180)
def test_port_security(tmp_path: Path) -> None:
    make_bridge("weave", BRIDGE_ADDRESS)
    with new_netns() as one, Daemon(tmp_path, *ALLOCATE, "--port-security") as node:
        process = one.run(lambda: holder(one.fileno()))
        try:
            node.says("attach", "--pid", str(process.pid), "c1")
            own = ("nft", "list", "set", "bridge", "weave", "own-addresses")
            until(lambda: "10.32.1.1" in subprocess.check_output(own, text=True), "its address")
        finally:
            process.kill()
            process.wait()


@in_new_netns
@pytest.mark.timeout(180)
def test_a_container_by_hand(tmp_path: Path) -> None:
    make_bridge("weave", BRIDGE_ADDRESS)
    with new_netns() as one, new_netns() as other, Daemon(tmp_path) as node:
        process = one.run(lambda: holder(one.fileno()))
        second = other.run(lambda: holder(other.fileno()))
        try:
            ident = "0123456789abcdef"
            pid = ["--pid", str(process.pid)]
            assert node.says("attach", *pid, ident) == "10.32.1.1\n"
            assert "224.0.0.0/4 dev ethwe scope link" in routes_in(one)
            more = ("net:10.32.2.0/24", "192.168.7.1/24")
            assert node.says("attach", *pid, *more, ident) == "10.32.2.1 192.168.7.1\n"
            again = (*more[::-1], "net:default")
            assert node.says("attach", *pid, *again, ident) == "192.168.7.1 10.32.2.1 10.32.1.1\n"
            path = f"/proc/{second.pid}/ns/net"
            made = json.loads(
                node.says(
                    *("attach", "--netns", path, "--name", "eth7", "--no-multicast-route"),
                    *("--without-dns", "--mtu", "1300", "--json", "other"),
                )
            )
            assert made["Addresses"] == ["10.32.1.2/24"]
            assert (made["Interface"], made["MTU"], made["Bridge"]) == ("eth7", 1300, "weave")
            assert "224.0.0.0/4 dev eth7 scope link" not in routes_in(other)
            assert answers(one, "10.32.1.2")
            # host, container, container
            host, first, last = node.says("ps").splitlines()
            assert host == f"weave:expose 7a:9f:eb:b6:0c:6e {BRIDGE_ADDRESS}"
            words = first.split()
            assert words[0] == "0123456789ab"
            assert words[2:] == ["10.32.1.1/24", "10.32.2.1/24", "192.168.7.1/24"]
            assert last == f"other {made['Mac']} 10.32.1.2/24"
            assert node.says("ps", "0123") == f"{first}\n"
            assert node.says("ps", "nobody") == ""
            assert json.loads(node.says("ps", "--json"))[2] == made
            assert node.says("audit") == "nothing is left over\n"
            assert node.says("detach", "net:10.32.2.0/24", "0123456") == "10.32.2.1\n"
            assert addresses_in(one) == ["10.32.1.1/24", "192.168.7.1/24"]
            assert node.says("detach", ident) == "10.32.1.1\n"
            assert node.says("detach", "--all", ident) == "192.168.7.1\n"
            assert links_in(one) == {"lo"}
            assert node.says("detach", "--all", ident) == ""
            assert node.says("detach", "--name", "eth7", "other") == "10.32.1.2\n"
            assert json.loads(node.says("audit", "--json")) == {
                "Leaks": [],
                "Problems": [],
                "Unattached": [],
                "Notes": [],
            }
        finally:
            for each in (process, second):
                each.kill()
                each.wait()


@in_new_netns
@pytest.mark.timeout(180)
def test_mistakes_are_one_line(tmp_path: Path) -> None:
    make_bridge("weave")
    with new_netns() as one, Daemon(tmp_path) as node:
        process = one.run(lambda: holder(one.fileno()))
        pid = ("--pid", str(process.pid))
        try:
            assert "has bits of a host" in node.refuses("attach", *pid, "net:10.32.2.1/24", "c1")
            assert "no usable addresses" in node.refuses("attach", *pid, "net:10.32.2.0/31", "c1")
            assert "no prefix length" in node.refuses("attach", *pid, "10.32.2.1", "c1")
            assert "container id" in node.refuses("attach", *pid, "ä")
            assert "no container" in node.refuses("attach")
            assert "no network namespace" in node.refuses("attach", "--netns", "/dev/null", "c1")
            assert "no such network namespace" in node.refuses("attach", "--netns", "/no", "c1")
            here = f"open {Path.cwd()}/no: no such"
            assert here in node.refuses("attach", "--netns", "no", "c1")
            own = "/proc/self/ns/net"
            assert "host's own" in node.refuses("attach", "--netns", own, "c1")
            assert "no such bridge" in node.refuses("attach", *pid, "--bridge", "blue", "c1")
            assert "between 68 and" in node.refuses("attach", *pid, "--mtu", "9000", "c1")
            assert "one of them" in node.refuses("attach", *pid, "--netns", "/x", "c1")
            assert "out of bounds" in node.refuses("attach", *pid, "net:10.99.0.0/24", "c1")
            assert links_in(one) == {"lo"}
            assert node.says("audit") == "nothing is left over\n"
            make_bridge("other", "192.168.9.1/24")
            words = ("attach", *pid, "192.168.9.9/24", "c1", "--http-addr", str(node.api))
            code, said, error = weft(*words)
            assert (code, said) == (0, "192.168.9.9\n")
            assert "overlaps with existing route 192.168.9.0/24" in error
        finally:
            process.kill()
            process.wait()


@in_new_netns
@pytest.mark.timeout(120)
def test_without_allocation(tmp_path: Path) -> None:
    make_bridge("weave")
    with new_netns() as one, Daemon(tmp_path, "--ipalloc-range", "") as node:
        process = one.run(lambda: holder(one.fileno()))
        try:
            pid = ("--pid", str(process.pid))
            assert "IP address allocation must be enabled to use 'net:'" in node.refuses(
                "attach", *pid, "c1"
            )
            assert node.says("attach", *pid, "10.2.1.1/24", "c1") == "10.2.1.1\n"
            assert node.says("detach", "c1") == "10.2.1.1\n"
        finally:
            process.kill()
            process.wait()


@in_new_netns
@pytest.mark.timeout(120)
def test_the_api(tmp_path: Path) -> None:
    make_bridge("weave")
    with new_netns() as one, Daemon(tmp_path) as node:
        process = one.run(lambda: holder(one.fileno()))
        try:
            with node.client(tcp=True) as client:
                for method, path in (("POST", "/attach/c1"), ("GET", "/attach"), ("GET", "/audit")):
                    answer = client.request(
                        method, path, content="{}" if method == "POST" else None
                    )
                    assert answer.status_code == 403
                    assert "Unix socket only" in answer.text
            with node.client() as client:
                made = client.post("/attach/c1", json={"pid": process.pid, "label": "ns/pod"})
                assert made.status_code == 200
                assert made.json()["Label"] == "ns/pod"
                taken = client.post("/attach/c2", json={"pid": process.pid})
                assert (taken.status_code, taken.text.count("\n")) == (409, 1)
                for body in (b"", b"{", b"[]", b'{"pid": "1"}', b'{"unknown": 1}', b"\xff"):
                    assert client.post("/attach/c1", content=body).status_code == 400
                assert client.post("/attach/c1", json={}).status_code == 400
                assert client.post("/attach/c1", json={"pid": -1}).status_code == 400
                assert client.post("/attach/c1", json={"netns": "no"}).status_code == 400
                gone = client.delete("/attach/c1", params={"all": "true"})
                assert gone.json() == made.json()["Addresses"]
                assert client.delete("/attach/c1").json() == []
                assert client.delete("/attach/%C3%A4").status_code == 400
                assert client.get("/audit").json()["Leaks"] == []
        finally:
            process.kill()
            process.wait()


@in_new_netns
@pytest.mark.timeout(180)
def test_killed_and_started_again(tmp_path: Path) -> None:
    make_bridge("weave", BRIDGE_ADDRESS)
    with new_netns() as one, new_netns() as other:
        process = one.run(lambda: holder(one.fileno()))
        second = other.run(lambda: holder(other.fileno()))
        try:
            with Daemon(tmp_path) as node:
                node.says("attach", "--pid", str(process.pid), "c1")
                node.says("attach", "--pid", str(second.pid), "c2")
                before = node.says("ps")
                node.signal(signal.SIGKILL)
                node.wait()
            second.kill()
            second.wait()
            other.close()
            with Daemon(tmp_path) as node:
                # the other's interface may be there for a moment longer than its namespace
                left = node.says("ps").splitlines()
                assert left[:2] == before.splitlines()[:2]
                assert "weave:expose" in left[0]
                assert node.says("detach", "--all", "c2") in ("", "10.32.1.2\n")
                assert node.says("audit") == "nothing is left over\n"
                assert answers(one, "10.32.1.254")
        finally:
            for each in (process, second):
                each.kill()
                each.wait()


def test_commands_without_a_daemon(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "weave.sock")
    for words in (("ps",), ("audit",), ("detach", "c1"), ("attach", "--pid", "1", "c1")):
        code, _, error = weft(*words, "--http-addr", nowhere)
        assert code == 1
        assert "no node is launched here" in error


@in_new_netns
def test_bridge_type_and_attach_bridge() -> None:
    code, said, error = weft("bridge-type")
    assert (code, said) == (1, "")
    assert error.startswith("weft: use weave: no such bridge; weft launch makes it")
    make_bridge("weave", "10.32.0.1/16")
    assert weft("bridge-type") == (0, "bridge\n", "")
    code, _, error = weft("attach-bridge")
    assert code == 1
    assert "docker0" in error
    make_bridge("docker0", "172.17.0.1/16")
    for _ in range(2):
        assert weft("attach-bridge", "docker0") == (0, "", "")
    assert "vethwebldocker0" in links_here()
    assert "makes a loop" in weft("attach-bridge", "--weave-bridge", "docker0", "weave")[2]
    make_bridge("weave2", "10.33.0.1/16")
    code, _, error = weft("attach-bridge", "--weave-bridge", "weave2", "docker0")
    assert code == 1
    assert "vethwebldocker0 joins it to another network" in error
    assert weft("attach-bridge", "docker0") == (0, "", "")
