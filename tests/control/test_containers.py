"""Which container a name means: the order in which runtimes are asked, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from base.errors import ConfigError
from control.cli import containers
from control.cli.containers import Container, UnknownContainerError, find, look_up
from tests.control.cri.served import FakeRuntime, hosted, status
from tests.control.processes import ROOT

#: Answers as Docker and podman do, on a Unix socket.
_SCRIPT = """
import json, socketserver, sys
from http.server import BaseHTTPRequestHandler
class Handler(BaseHTTPRequestHandler):
    def address_string(self): return ""
    def log_message(self, *_): pass
    def do_GET(self):
        found = json.loads(sys.argv[2]).get(self.path.split("/")[-2])
        body = json.dumps(found).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = socketserver.UnixStreamServer(sys.argv[1], Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextmanager
def docker_at(path: Path, containers: dict[str, Any]) -> Iterator[None]:
    """A Docker that knows these containers, in a child process."""
    argv = [sys.executable, "-c", _SCRIPT, str(path), json.dumps(containers)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()
            path.unlink()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which no runtime is to be found, its places all below this folder."""
    for name in ("PODMAN_SOCKET", "DOCKER_SOCKET", "NAMED"):
        monkeypatch.setattr(containers, name, tmp_path / name.lower())
    monkeypatch.setattr(containers, "CRI_SOCKETS", (tmp_path / "cri1", tmp_path / "cri2"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(containers.CRI_VARIABLE, raising=False)
    (tmp_path / "named").mkdir()
    return tmp_path


def asked(name: str) -> str:
    """Who was asked in vain, as the error says it."""
    with pytest.raises(UnknownContainerError) as caught:
        look_up(name)
    start, _, rest = str(caught.value).partition("; asked: ")
    assert start == f'container "{name}" is not known here'
    who, _, remedy = rest.partition("; name its namespace with --netns")
    assert remedy == " or a process of it with --pid"
    return who


def test_named_namespaces_and_docker(host: Path) -> None:
    (host / "named" / "blue").touch()
    assert find("blue") == Container("blue", str(host / "named" / "blue"))
    known: dict[str, Any] = {
        "web1": {"Id": "0123abcd", "State": {"Pid": os.getpid()}},
        "blue": {"Id": "99", "State": {"Pid": 1}},
        "stopped": {"Id": "4567", "State": {"Pid": 0}},
        "odd": {"Id": "89ab", "State": []},
    }
    with docker_at(host / "docker_socket", known):
        assert find("blue").ident == "blue"
        assert find("web1") == Container("0123abcd", f"/proc/{os.getpid()}/ns/net")
        for name in ("stopped", "odd"):
            assert look_up(name) == Container(known[name]["Id"], "")
            with pytest.raises(ConfigError, match=f'container "{name}" is not running; start it'):
                find(name)
        assert asked("unknown") == f"ip netns, {host / 'docker_socket'}"


def test_podman_by_its_command(host: Path) -> None:
    tool = host / "podman"
    tool.write_text('#!/bin/sh\n[ "$6" = odd ] && echo \'[{"Id": "89", "State": {"Pid": 7}}]\'\n')
    tool.chmod(0o755)
    assert find("odd") == Container("89", "/proc/7/ns/net")
    assert asked("none") == f"ip netns, {tool}"


def test_what_is_no_name(host: Path) -> None:
    for name in ("", "/", "a/", "/a", "a/b/c", "ä", "a b", "a\n", "../x", "-x", "x" * 201):
        with pytest.raises(ConfigError, match="container id"):
            look_up(name)
    assert asked("default/web") == "nobody, as no runtime serves the CRI"


def test_pods_come_last(host: Path) -> None:
    (host / "named" / "blue").touch()
    with (
        docker_at(host / "docker_socket", {"web1": {"Id": "01", "State": {"Pid": 7}}}),
        FakeRuntime(host / "cri1", **hosted(blue="a1", web1="a2", db="a3")),
        FakeRuntime(host / "cri2", **hosted(db="b3", more="b4")),
    ):
        assert find("blue").ident == "blue"
        assert find("web1").ident == "01"
        assert find("default/web1") == Container("a2", "/run/netns/x", "default/web1")
        assert find("db") == Container("a3", "/run/netns/x", "default/db")
        assert find("more") == Container("b4", "/run/netns/x", "default/more")
        docker, first, second = (host / name for name in ("docker_socket", "cri1", "cri2"))
        assert asked("none") == f"ip netns, {docker}, {first}, {second}"
        assert asked("default/none") == f"{first}, {second}"


def test_one_that_fails_is_passed_over_and_told(host: Path) -> None:
    with (
        FakeRuntime(host / "cri1", ListPodSandbox=b"\xff"),
        FakeRuntime(host / "cri2", **hosted(db="b3")),
    ):
        assert find("db").ident == "b3"
        told = f"ip netns, {host / 'cri1'} (its answer cannot be read), {host / 'cri2'}"
        assert asked("none") == told


def test_the_users_own_place(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = host / "a place %41#1?"
    with FakeRuntime(host / "cri1", **hosted(db="b3")), FakeRuntime(own, **hosted(db="c3")):
        for endpoint in (f"unix://{own}", str(own)):
            monkeypatch.setenv(containers.CRI_VARIABLE, endpoint)
            assert find("db").ident == "c3"
    assert asked("a/b") == f"{own} (nobody answers)"
    for endpoint in ("tcp://127.0.0.1:1", "unix://relative", "run/x.sock", "npipe:////./pipe/x"):
        monkeypatch.setenv(containers.CRI_VARIABLE, endpoint)
        with pytest.raises(ConfigError, match=f"{containers.CRI_VARIABLE}: "):
            look_up("db")


def test_a_pod_that_does_not_run(host: Path) -> None:
    with FakeRuntime(host / "cri1", **hosted(ready=False, db="b3")):
        assert look_up("db") == Container("b3", "", "default/db")
        with pytest.raises(ConfigError, match="not running"):
            find("db")


def test_a_pod_on_the_hosts_network(host: Path) -> None:
    answers = hosted(db="b3") | {"PodSandboxStatus": status(network=2)}
    with FakeRuntime(host / "cri1", **answers), pytest.raises(ConfigError, match="host's own"):
        look_up("db")


def test_dockers_adapter_does_not_tell_the_namespace(host: Path) -> None:
    answers = hosted(db="b3") | {"PodSandboxStatus": status()}
    with FakeRuntime(host / "cri1", **answers):
        with pytest.raises(ConfigError, match="does not tell where its network namespace is"):
            look_up("db")
        with docker_at(host / "docker_socket", {"b3": {"Id": "b3", "State": {"Pid": 7}}}):
            assert find("db") == Container("b3", "/proc/7/ns/net", "default/db")


def test_a_runtime_may_say_anything(host: Path) -> None:
    with (
        FakeRuntime(host / "cri1", **hosted(db="../b3")),
        pytest.raises(ConfigError, match="container id"),
    ):
        find("db")
    with FakeRuntime(host / "cri1", **hosted(namespace="\x1b[2J", db="b3")):
        assert find("db").label == ""


def test_without_a_socket_nothing_heavy_is_loaded(host: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom control.cli import containers\n"
        "from control.cli.main import main\nnowhere = Path(sys.argv[1])\n"
        "containers.NAMED = containers.PODMAN_SOCKET = containers.DOCKER_SOCKET = nowhere\n"
        "containers.CRI_SOCKETS = (nowhere,)\nassert main(['attach', 'web']) == 1\n"
        "heavy = [name for name in ('grpc', 'google.protobuf') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(host / "nowhere")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith('weft: container "web" is not known here; asked: ip netns; ')
