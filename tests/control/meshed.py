"""Control processes that form a mesh on loopback and divide a range; there are no routers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.control.processes import Running, until

#: Every test process has its own hosts, so that several may run at once.
_NET = f"127.{10 + os.getpid() % 200}.{os.getpid() // 200 % 250}"


def host(number: int) -> str:
    """Address of a member."""
    return f"{_NET}.{number}"


def free_port() -> int:
    """A TCP port that is free on the members' addresses, most likely."""
    with socket.socket() as probe:
        probe.bind((host(1), 0))
        port: int = probe.getsockname()[1]
        return port


def _shown(number: int) -> str:
    return f"ce:{number:02}:00:00:00:{number:02}(host{number})"


class Member(Running):
    """``weft control`` as peer ``ce:0N:00:00:00:0N``, called hostN."""

    def __init__(self, folder: Path, number: int, port: int, *more: str, **environ: str) -> None:
        self.folder = folder
        self.number = number
        self.name = f"ce:{number:02}:00:00:00:{number:02}"
        self.api = folder / f"api{number}.sock"
        argv = ["-P", "-m", "control.cli", "control", "--name", self.name]
        argv += ["--nickname", f"host{number}", "--host", host(number), "--port", str(port)]
        argv += ["--db-prefix", f"{folder}/{number}-", "--http-addr", str(self.api)]
        # several on one host, which is the developer's: nothing of it is touched
        argv += ["--no-packet-filter", "--weave-bridge", f"weave{number}"]
        # the socket for CNI calls is beside it
        argv += ["--control-socket", str(folder / f"run{number}" / "router.sock"), *more]
        super().__init__(folder, argv, **environ)

    def until_ready(self) -> None:
        """It serves."""
        self.until_told("READY=1", timeout_s=60)

    def client(self, timeout_s: float = 30) -> httpx.Client:
        """For its API."""
        transport = httpx.HTTPTransport(uds=str(self.api))
        return httpx.Client(transport=transport, base_url="http://weft", timeout=timeout_s)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request."""
        with self.client() as client:
            return client.request(method, path, **more)

    def text(self, method: str, path: str) -> str:
        """The body of a request that must succeed."""
        answer = self.ask(method, path)
        assert answer.is_success, f"{answer.status_code}: {answer.text}"
        return answer.text

    def text_of(self, page: str) -> str:
        """A status page, whatever its code: it says 503 while there is no router."""
        return self.ask("GET", page).text

    def ipam(self) -> dict[str, Any]:
        """IPAM's part of the report."""
        found: dict[str, Any] = self.ask(
            "GET", "/report", headers={"Accept": "application/json"}
        ).json()["IPAM"]
        return found

    def knows(self, *numbers: int) -> bool:
        """Whether it is in one mesh with these."""
        page = self.text_of("/status/peers")
        return all(f"\n{name}\n" in f"\n{page}" for name in map(_shown, numbers))


@contextmanager
def members(folder: Path, count: int, *more: str) -> Iterator[list[Member]]:
    """So many members, each connected to the first."""
    port = free_port()
    with ExitStack() as stack:
        found = []
        for number in range(1, count + 1):
            peers = ["--", host(1)] if number > 1 else []
            member = stack.enter_context(Member(folder, number, port, *more, *peers))
            member.until_ready()
            found.append(member)
        for member in found:
            until(
                lambda member=member: member.knows(*range(1, count + 1)),  # type: ignore[misc]
                f"{member.name} to know all",
                30,
            )
        yield found
