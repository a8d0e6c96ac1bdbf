"""Who calls over the Unix socket is what the kernel says, whatever the socket's mode is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from control.api.caller import Credentials
from tests.control.processes import ROOT
from tests.control.served import Served

_ASK = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setgid(gid); os.setuid(uid)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(path)
    client.sendall(b"GET /status HTTP/1.0\\r\\n\\r\\n")
    print(client.recv(65536).decode().split("\\r\\n")[0].split()[1])
"""


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    for above in (folder, *folder.parents):
        if above == Path("/tmp") or above.owner() != "root":
            break
        above.chmod(0o755)
    api = Served(folder)
    with api.running():
        yield api


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize(
    ("uid", "gid", "groups", "status"),
    [
        (0, 0, "", "200"),
        (0, 65534, "", "200"),
        (65534, 65534, "", "403"),
        (65534, 65534, "10", "403"),
        (65534, 7, "", "200"),
        (65534, 65534, "10,7", "200"),
    ],
)
def test_root_and_the_group_may_ask(
    served: Served, uid: int, gid: int, groups: str, status: str
) -> None:
    os.chown(served.unix, 0, 7)
    served.unix.chmod(0o666)  # somebody's mistake
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(served.unix), str(uid), str(gid), groups],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == status


_RUN = """
import os, sys
import httpx
from control.cli import attach, client, main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main.main(sys.argv[1:]))
"""


class _Refusing(BaseHTTPRequestHandler):
    """The port of loopback, where containers are not dealt with."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"attach is served on the Unix socket only\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_who_may_not_open_the_socket_is_told_that(served: Served) -> None:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as tcp, ThreadPoolExecutor(1) as pool:
        pool.submit(tcp.handle_request)
        where = f"{served.unix},127.0.0.1:{tcp.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", _RUN, "ps", "--http-addr", where],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr == f"weft: --http-addr: {served.unix}: permission denied; run as root\n"


def test_credentials_of_ourselves() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = Credentials.of(ours)
    assert (found.pid, found.uid) == (os.getpid(), os.geteuid())
    assert {os.getegid(), *os.getgroups()} <= found.groups
