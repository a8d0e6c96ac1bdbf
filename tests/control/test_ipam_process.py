"""Address allocation by real control processes: killed, without disk, without range, left alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.control.meshed import Member, free_port
from tests.control.processes import ROOT, until

#: Whole processes, on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)

_ALONE = ("--ipalloc-init", "consensus=1", "--ipalloc-range", "10.32.0.0/16")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Member]:
    with Member(tmp_path, 1, free_port(), *_ALONE) as member:
        member.until_ready()
        member.text("GET", "/ring")
        yield member


async def _crowd(member: Member, count: int, kill_after: int | None) -> dict[str, str]:
    """What ``count`` clients were given; the process is killed after so many answers.

    So many at once that they share commits, and so few that not all are answered before the kill.
    """
    given: dict[str, str] = {}
    at_once = anyio.Semaphore(128)

    async def ask(number: int) -> None:
        ident = f"c{number}"
        answer = b""
        try:
            async with at_once, await anyio.connect_unix(member.api) as stream:
                await stream.send(f"POST /ip/{ident} HTTP/1.0\r\n\r\n".encode())
                while True:
                    answer += await stream.receive()
        except anyio.EndOfStream:
            pass
        except (OSError, anyio.BrokenResourceError):
            return  # nothing was promised
        head, _, body = answer.partition(b"\r\n\r\n")
        if not body:
            return
        assert head.startswith(b"HTTP/1.1 200 OK"), answer
        given[ident] = body.decode()
        if len(given) == kill_after:
            member.signal(signal.SIGKILL)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(ask, number)
    return given


def test_killed_among_a_thousand_requests(tmp_path: Path) -> None:
    port = free_port()
    with Member(tmp_path, 1, port, *_ALONE) as member:
        member.until_ready()
        member.text("GET", "/ring")
        promised = anyio.run(_crowd, member, 1000, 300)
        member.wait()
    assert 300 <= len(promised) < 1000
    with Member(tmp_path, 1, port, *_ALONE) as member:
        member.until_ready()
        everybody = anyio.run(_crowd, member, 1000, None)
        owned = member.ask("GET", "/ip").json()["owned"]
    assert len(everybody) == len(set(everybody.values())) == 1000
    assert {ident: everybody[ident] for ident in promised} == promised
    assert {each["containerid"]: each["addrs"] for each in owned} == {
        ident: [address] for ident, address in everybody.items()
    }


def test_who_hangs_up_withdraws(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-init", "observer") as member:
        member.until_ready()
        for method, path in (("POST", "/ip/c1"), ("POST", "/ip/c2?check-alive=true")):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(member.api))
                client.sendall(f"{method} {path} HTTP/1.1\r\nHost: weft\r\n\r\n".encode())
                until(lambda: member.ipam()["PendingAllocates"] is not None, "the request")
            until(lambda: member.ipam()["PendingAllocates"] is None, "its end")
        answer = member.ask("POST", "/ip/c1?timeout=0.01")
        assert answer.status_code == 503
        assert answer.text.endswith("\n")
        assert member.ask("POST", "/ip/c1?timeout=soon").status_code == 400
        assert member.ask("GET", "/ip").text == '{"owned":null}\n'
        assert " Status: priming\n" in member.ask("GET", "/status").text
        assert "weave_ipam_pending_allocates 0\n" in member.ask("GET", "/metrics").text


def test_cancelled_by_a_shutdown(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-init", "observer") as member:
        member.until_ready()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(member.api))
            client.sendall(b"POST /ip/c1 HTTP/1.0\r\n\r\n")
            until(lambda: member.ipam()["PendingAllocates"] is not None, "the request")
            assert member.ask("DELETE", "/peer").status_code == 204
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\ncancelled")


def test_whoever_waits_is_told_of_a_stop(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-init", "observer") as member:
        member.until_ready()
        with ExitStack() as held:
            clients = {
                line: held.enter_context(socket.socket(socket.AF_UNIX))
                for line in ("POST /ip/c1", "POST /ip/c2?check-alive=true", "GET /ring")
            }
            for line, client in clients.items():
                client.settimeout(20)
                client.connect(str(member.api))
                client.sendall(f"{line} HTTP/1.0\r\n\r\n".encode())
            until(lambda: len(member.ipam()["PendingAllocates"] or ()) == 2, "the requests")
            member.process.terminate()
            for line, client in clients.items():
                answer = b""
                while data := client.recv(4096):
                    answer += data
                assert answer.startswith(b"HTTP/1.1 503 "), (line, answer)
                assert answer.endswith(b"the node stops; try again when it runs\n"), (line, answer)
        member.process.wait(20)
        assert "Traceback" not in member.stderr


def test_prime_ends_with_a_shutdown(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-init", "observer") as member:
        member.until_ready()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(member.api))
            client.sendall(b"GET /ring HTTP/1.0\r\n\r\n")
            assert member.ask("DELETE", "/peer").status_code == 204
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("//ip//c1", "/ip/c1"),
        ("/ip///a%2F/?x=%2F//y", "/ip/a/?x=%2F//y"),
        ("//evil.example", "/evil.example"),
        ("/nothing/../x/./status?a=b", "/x/status?a=b"),
    ],
)
def test_doubled_slashes_are_sent_elsewhere(alone: Member, path: str, where: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:  # httpx would tidy up
        client.settimeout(20)
        client.connect(str(alone.api))
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 301 ")
    assert f"location: {where}\r\n".encode() in answer


def test_what_is_no_address(alone: Member) -> None:
    answer = alone.ask("DELETE", "/ip/c1/junk")
    assert (answer.status_code, answer.text) == (400, "invalid IP Address: junk\n")


def test_parameters_in_a_form(alone: Member) -> None:
    body = "check-alive=true&timeout=5"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert alone.ask("POST", "/ip/c1", content=body, headers=headers).text == "10.32.0.1/16"
    claim = alone.ask(
        "PUT", "/ip/c2/10.32.0.1/16", content="noErrorOnUnknown=true", headers=headers
    )
    assert claim.status_code == 400
    assert claim.text.startswith("Unable to claim: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/ip/c1", 405),
        ("PUT", "/ip/c1", 405),
        ("GET", "/ip/c1/10.32.0.0", 405),
        ("POST", "/ip/c1/10.32.0.0/16/x", 404),
        ("POST", "/xip/c1", 404),
        ("POST", "/ip/", 404),
        ("POST", "/ip/a%0Ab", 400),
        ("POST", f"/ip/{'x' * 2000}", 400),
        ("DELETE", "/ip/c1/10.32.0.300", 400),
        ("POST", "/ip/c1/10.32.0.0/0", 400),
        ("POST", "/ip/c1/10.32.0.0/33", 400),
    ],
)
def test_what_is_no_request_of_ours(alone: Member, method: str, path: str, status: int) -> None:
    answer = alone.ask(method, path)
    assert answer.status_code == status
    assert alone.ask("GET", "/ip").text == '{"owned":null}\n'


_segment = st.sampled_from(
    ["ip", "c1", "_", "10.32.0.9", "10.32.0.0", "16", "33", "", ".."]
) | st.text(st.characters(codec="utf-8"), max_size=8)


def test_any_request(alone: Member) -> None:
    """Whatever is asked, the answer is no error of ours, and it goes on."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
        st.sampled_from(["ip", "ipinfo", "peer"]),
        st.lists(_segment, max_size=4),
        st.dictionaries(
            st.sampled_from(["check-alive", "noErrorOnUnknown", "timeout", "force", "x"]),
            st.sampled_from(["true", "0", "-1", "nan", "\N{SNOWMAN}"]) | st.text(max_size=5),
        ),
        st.binary(max_size=30),
    )
    def ask(
        method: str, room: str, segments: list[str], query: dict[str, str], body: bytes
    ) -> None:
        if (method, room, segments) == ("DELETE", "peer", []):
            return  # that one ends allocation
        path = "/".join(["", room, *(quote(segment, safe="") for segment in segments)])
        answer = client.request(method, path, params={"timeout": "0", **query}, content=body)
        assert answer.status_code in (200, 204, 301, 400, 404, 405, 503), answer.text
        ends = 2 if answer.status_code == 301 else 1  # of lines, at most
        shown = answer.text.removesuffix("\n" * ends)
        assert shown.removesuffix("\n").isprintable(), answer.text

    with alone.client() as client:
        ask()
        found = client.get("/ip").json()["owned"] or []
        addresses = [address.split("/")[0] for each in found for address in each["addrs"]]
        assert len(addresses) == len(set(addresses))
    assert "Traceback" not in alone.stderr


def test_no_range_no_allocation(tmp_path: Path) -> None:
    with Member(tmp_path, 1, free_port(), "--ipalloc-range", "") as member:
        member.until_ready()
        for method, path in (
            *(("POST", "/ip/c1"), ("GET", "/ip"), ("GET", "/ring"), ("GET", "/status/ipam")),
            *(("GET", "/ipinfo/defaultsubnet"), ("PUT", "/ip/c1/10.32.0.1/12")),
        ):
            assert member.ask(method, path).status_code == 404, path
        assert member.ask("DELETE", "/peer").status_code == 204
        assert member.ask("DELETE", "/peer/host2").text == ""
        assert "ipam" not in member.ask("GET", "/status").text
        assert "weave_ip" not in member.ask("GET", "/metrics").text
        report = member.ask("GET", "/report", headers={"Accept": "application/json"}).json()
        assert "IPAM" not in report


def test_pages_elsewhere_change_nothing(tmp_path: Path) -> None:
    status, metrics = tmp_path / "status.sock", tmp_path / "metrics.sock"
    more = ("--status-addr", str(status), "--metrics-addr", str(metrics), *_ALONE)
    with Member(tmp_path, 1, free_port(), *more) as member:
        member.until_ready()
        for path, served in ((status, 200), (metrics, 404)):
            member.api = path
            assert member.ask("GET", "/metrics").status_code == 200
            assert member.ask("GET", "/status/targets").status_code in (503, served)
            assert member.ask("GET", "/report?format=x").status_code == served
            for method, target in (("POST", "/ip/c1"), ("POST", "/connect"), ("DELETE", "/peer")):
                assert member.ask(method, target).status_code == 404


# Disks that fail -------------------------------------------------------------------------------


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 4] = b"\x5a" * 8192
    path.write_bytes(data)


def _foreign(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("spoil", [_damaged, _foreign])
def test_a_file_that_is_not_as_it_was_is_refused(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    with Member(tmp_path, 1, free_port(), *_ALONE) as member:
        member.until_ready()
        member.text("POST", "/ip/c1")
    path = tmp_path / "1-data.db"
    spoil(path)
    before = path.read_bytes()
    with Member(tmp_path, 1, free_port(), *_ALONE) as member:
        assert member.wait() == 1
        assert "weft: --db-prefix: " in member.stderr
        assert member.stderr.splitlines()[-1].startswith("weft: --db-prefix: ")
    assert path.read_bytes() == before


class _Confined(Member):
    """A member whose state is on a small file system of its own mount namespace."""

    def __init__(self, folder: Path, mount_options: str, *more: str) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.mount_options = mount_options
        super().__init__(folder, 1, free_port(), *more, "--db-prefix", f"{self.disk}/weft-")

    def command(self, argv: list[str]) -> list[str]:
        mount = f'mount -t tmpfs -o {self.mount_options} tmpfs {self.disk} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *argv]

    def inside(self, name: str) -> Path:
        """A file of the small disk, seen from here."""
        return Path(f"/proc/{self.pid}/root{self.disk}/{name}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_a_full_disk(tmp_path: Path) -> None:
    with _Confined(tmp_path, "size=1m", *_ALONE) as member:
        member.until_ready()
        promised = {"c0": member.text("POST", "/ip/c0")}
        ballast = member.inside("ballast")
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(1 << 20))
        refused = None
        for number in range(1, 2000):
            answer = member.ask("POST", f"/ip/c{number}-{'x' * 900}")
            if answer.status_code != 200:
                refused = answer
                break
            promised[f"c{number}-{'x' * 900}"] = answer.text
        assert refused is not None
        assert refused.status_code == 503
        assert "full" in refused.text
        status = member.ask("GET", "/status").text
        assert "Warning: addresses cannot be recorded: " in status
        assert member.text("POST", "/ip/c0") == promised["c0"]
        assert member.text("GET", "/ip/c0") == promised["c0"]
        ballast.unlink()
        promised["later"] = member.text("POST", "/ip/later")
        assert "cannot be recorded" not in member.ask("GET", "/status").text
        assert len(set(promised.values())) == len(promised)
        owned = member.ask("GET", "/ip").json()["owned"]
        assert {each["containerid"]: each["addrs"][0] for each in owned} == promised
        assert member.stderr.count("addresses cannot be recorded") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_a_read_only_folder(tmp_path: Path) -> None:
    with _Confined(tmp_path, "ro", *_ALONE) as member:
        assert member.wait() == 1
        assert "weft: --db-prefix: cannot open " in member.stderr
        assert "Read-only file system" in member.stderr
        assert "Traceback" not in member.stderr


def test_the_benchmark_of_a_whole_range(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_RANGE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("1022 ")


_SMALL_RANGE = """
import sys, anyio
from bench.ipam.full_range import allocate_all
from control.state import StateStore
with StateStore.open(sys.argv[1] + "/weft-") as store:
    result = anyio.run(allocate_all, store, "10.32.0.0/22")
print(result.addresses, result.commits)
"""
