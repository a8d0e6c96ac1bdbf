"""The executable by itself: what it does when control is silent, odd or away; and any bytes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni.stub import build
from cni.versions import NEWEST, SUPPORTED
from control.cni.wire import Request, decode_request, encode_request, request_length
from tests.control.cni.runtime import STUB, Outcome

ROOT = STUB.parents[2]


def call(
    stdin: bytes, stub: Path = STUB, name: str = "weave-net", **variables: str | bytes
) -> Outcome:
    environment: dict[str, Any] = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", **variables}
    done = subprocess.run(
        [name],
        executable=str(stub),
        input=stdin,
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


@contextlib.contextmanager
def control(folder: Path, serve: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Something that answers one call."""
    path = folder / "cni.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as one:
                serve(one)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def receive(sock: socket.socket) -> tuple[Request, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, 65536, 4)
    length = request_length(data)
    while len(data) < 4 + length:
        data += sock.recv(65536)
    return decode_request(data[4:]), fds


def answer(status: int, stdout: bytes, stderr: bytes = b"") -> bytes:
    body = struct.pack(">BI", status, len(stderr)) + stderr + stdout
    return struct.pack(">I", len(body)) + body


def config(path: Path, **keys: Any) -> bytes:
    return json.dumps(
        {"cniVersion": "0.4.0", "name": "n", "routerSocket": str(path), **keys}
    ).encode()


def test_it_is_static_and_knows_our_versions() -> None:
    with STUB.open("rb") as file:
        assert b"ld-linux" not in file.read(4096)
    shown = json.loads(call(b"{}", CNI_COMMAND="VERSION").stdout)
    assert shown == {"cniVersion": NEWEST, "supportedVersions": list(SUPPORTED)}


def test_what_is_handed_over(tmp_path: Path) -> None:
    seen: list[tuple[Request, list[int]]] = []

    def serve(sock: socket.socket) -> None:
        seen.append(receive(sock))
        sock.sendall(answer(7, b"out", b"err"))

    with control(tmp_path, serve) as path:
        given = config(path)
        outcome = call(given, CNI_NETNS="/proc/self/ns/net", CNI_ARGS="a=b;c=\xc3\xa4", SECRET="s")
    assert outcome == Outcome(7, b"out", "err")
    ((request, fds),) = seen
    assert request.personality == "weave-net"
    assert request.config == given
    assert set(request.variables) == {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS"}
    assert decode_request(encode_request(request)) == request
    (fd,) = fds
    assert os.fstat(fd).st_ino == Path("/proc/self/ns/net").stat().st_ino
    os.close(fd)


def test_large_answer_and_configuration(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        request, _ = receive(sock)
        sock.sendall(answer(0, request.config * 2))

    with control(tmp_path, serve) as path:
        given = config(path, filler="x" * 900_000)
        assert call(given).stdout == given * 2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 4) + b"\0\0\0\0",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 100) + b"\0" * 20,
        struct.pack(">IBI", 5, 0, 1),
    ],
)
def test_answers_that_are_none(tmp_path: Path, said: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(said)

    with control(tmp_path, serve) as path:
        assert call(config(path)).code == 11


def test_silence_ends_with_the_timeout(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        receive(sock)
        sock.recv(1)  # until the stub has gone

    with control(tmp_path, serve) as path:
        error = call(config(path, timeout=0.01)).error
    assert error["code"] == 11
    assert error["cniVersion"] == "0.4.0"
    assert "timed out" in error["details"]


@pytest.mark.parametrize("path", ["/nowhere/cni.sock", "/etc/passwd", "/" + "x" * 200])
def test_nobody_is_there(path: str) -> None:
    error = call(config(Path(path))).error
    assert error["code"] == 11
    assert path in error["details"]
    assert "weave-net pod" in error["details"]


def test_default_paths() -> None:
    # nothing listens there on a machine that runs tests
    if not Path("/run/weave/cni.sock").exists():
        assert "/run/weave/cni.sock" in call(b'{"name":"n"}').error["details"]


def test_no_command() -> None:
    error = call(b"", CNI_COMMAND="").error
    assert (error["code"], "CNI_COMMAND" in error["msg"]) == (4, True)


def test_too_much() -> None:
    assert call(b" " * (1 << 20) + b"{}").code == 6
    long: dict[str, Any] = {f"CNI_{number}": "x" * 100_000 for number in range(3)}
    assert call(b"{}", **long).code == 4


def test_del_writes_the_whole_request_down(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    given = config(tmp_path / "none", pendingDir=str(folder))
    outcome = call(given, CNI_COMMAND="DEL", CNI_IFNAME="eth0")
    outcome.nothing()
    (path,) = folder.iterdir()
    assert path.name.startswith("c@eth0.")
    request = decode_request(path.read_bytes())
    assert request.config == given
    assert request.variables["CNI_COMMAND"] == "DEL"
    call(given, CNI_COMMAND="DEL", CNI_IFNAME="eth0").nothing()
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("name", "value"), [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b")])
def test_del_makes_no_odd_files(tmp_path: Path, name: str, value: str) -> None:
    given = config(tmp_path / "none", pendingDir=str(tmp_path / "pending"))
    variables: dict[str, Any] = {"CNI_COMMAND": "DEL", "CNI_IFNAME": "eth0", name: value}
    assert call(given, **variables).code == 4
    assert not (tmp_path / "pending").exists()


# --- any bytes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub with the address and undefined-behaviour sanitizers."""
    target = tmp_path_factory.mktemp("stub") / "weft-cni"
    build.build(target, "address,undefined")
    return target


VALUES = st.one_of(
    st.text(max_size=30), st.integers(), st.booleans(), st.none(), st.lists(st.text(max_size=5))
)
OBJECTS = st.dictionaries(
    st.sampled_from(["cniVersion", "name", "routerSocket", "pendingDir", "timeout", "x", "ipam"]),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(["name", "timeout"]), VALUES)),
)
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sane(outcome: Outcome) -> None:
    assert "Sanitizer" not in outcome.stderr
    assert "runtime error" not in outcome.stderr
    assert outcome.status == 1
    assert isinstance(outcome.code, int)


@SETTINGS
@given(st.binary(max_size=200), st.sampled_from(["ADD", "VERSION", "CHECK"]))
def test_any_standard_input(sanitized: Path, stdin: bytes, command: str) -> None:
    outcome = call(stdin, sanitized, CNI_COMMAND=command)
    if command == "VERSION":
        assert outcome.result["supportedVersions"]
    else:
        sane(outcome)


@SETTINGS
@given(OBJECTS, st.integers(0, 400))
def test_any_configuration(sanitized: Path, shape: dict[str, Any], cut: int) -> None:
    stdin = json.dumps({**shape, "routerSocket": "/nowhere/x"}).encode()
    sane(call(stdin[: len(stdin) - cut] if cut < 40 else stdin, sanitized))


@SETTINGS
@given(st.binary(min_size=1, max_size=120).filter(lambda text: 0 not in text))
def test_any_variable(sanitized: Path, text: bytes) -> None:
    given_config = b'{"name":"n","routerSocket":"/nowhere/' + text.hex().encode() + b'"}'
    outcome = call(given_config, sanitized, CNI_COMMAND=text, CNI_CONTAINERID=text, CNI_IFNAME=text)
    if text == b"VERSION":
        return
    sane(outcome)


@SETTINGS
@given(st.binary(min_size=1, max_size=60).filter(lambda text: 0 not in text))
def test_any_socket_path_comes_out_as_json(sanitized: Path, text: bytes) -> None:
    quoted = text.replace(b"\\", b"").replace(b'"', b"")
    sane(call(b'{"name":"n","routerSocket":"/nowhere/' + quoted + b'"}', sanitized))


@pytest.mark.slow
def test_libfuzzer(tmp_path: Path) -> None:
    folder = STUB.parent
    target = tmp_path / "fuzz"
    sources = [folder / "json.c", folder / "pending.c", ROOT / "tests" / "cni" / "stub_fuzz.c"]
    sources.append(tmp_path / "write_all.c")
    sources[-1].write_text(
        '#include "stub.h"\nint write_all(int fd, const void *data, size_t len)\n'
        "{\n    (void)fd;\n    (void)data;\n    return (int)(len & 0);\n}\n"
        "uint8_t request[HEADER_LEN + NAME_MAX_LEN + ENVIRONMENT_MAX + CONFIG_MAX + 4];\n"
    )
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", f"-I{folder}"]
    subprocess.run(["clang", *flags, "-o", target, *sources], check=True)
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "config").write_bytes(config(Path("/run/x"), timeout=2.5, ipam={"name": ["x"]}))
    done = subprocess.run(
        [target, "-runs=200000", "-max_total_time=20", "-max_len=2048", seeds],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
