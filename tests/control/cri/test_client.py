"""Runtimes that are away, silent, strange or too talkative: a few words and no more, in time."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from control.cri.client import ANSWER_LEN_MAX, CriClient, CriError
from control.cri.lookup import FoundPod, find_pod
from control.cri.pods import Pod
from tests.control.cri.served import NETNS, SILENCE, FakeRuntime, encode, hosted

#: For what must come; a time-out that is waited for is short.
PATIENT_S = 30.0
SHORT_S = 0.2


def complaint(path: Path, timeout_s: float = PATIENT_S) -> str:
    with pytest.raises(CriError) as caught:
        find_pod(path, "web", timeout_s=timeout_s)
    return str(caught.value)


def test_found_and_not_found(tmp_path: Path) -> None:
    path = tmp_path / "cri"
    with FakeRuntime(path, **hosted(web="a1", db="a2")):
        pod = Pod("a1", "default", "web", ready=True)
        assert find_pod(path, "web", timeout_s=PATIENT_S) == FoundPod(pod, NETNS)
        assert find_pod(path, "none", timeout_s=PATIENT_S) is None


def test_a_pod_that_does_not_run_is_not_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "cri"
    answers = hosted(ready=False, web="a1") | {"PodSandboxStatus": b"\xff"}
    with FakeRuntime(path, **answers):
        pod = Pod("a1", "default", "web", ready=False)
        assert find_pod(path, "web", timeout_s=PATIENT_S) == FoundPod(pod, "")


def test_nobody_there(tmp_path: Path) -> None:
    path = tmp_path / "cri"
    assert complaint(path) == "nobody answers"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert complaint(path) == "nobody answers"


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    assert complaint(tmp_path / ("x" * 200)) == "error UNKNOWN"


def test_silence(tmp_path: Path) -> None:
    path = tmp_path / "cri"
    with socket.socket(socket.AF_UNIX) as mute:  # takes the connection and says nothing
        mute.bind(str(path))
        mute.listen()
        assert complaint(path, SHORT_S) == "no answer in 0.2 s"
    path.unlink()
    for method in ("ListPodSandbox", "ListContainers", "PodSandboxStatus"):
        with FakeRuntime(path, **{**hosted(web="a1"), method: SILENCE}):
            assert complaint(path, SHORT_S) == "no answer in 0.2 s"


def test_something_else_listens(tmp_path: Path) -> None:
    with FakeRuntime(tmp_path / "cri"):
        assert complaint(tmp_path / "cri") == "does not serve the CRI"


@pytest.mark.parametrize("method", ["ListPodSandbox", "ListContainers", "PodSandboxStatus"])
def test_no_message(tmp_path: Path, method: str) -> None:
    whole = hosted(web="a1")
    field = b"\x12" if method == "PodSandboxStatus" else b"\x0a"
    no_utf8 = field + b"\x04\x0a\x02\xff\xfe"
    for body in (
        whole["ListPodSandbox"][:-1],
        b"\x0a\xff\xff\xff\xff\x0f",
        no_utf8,
        b"\x0b" * 5000,
    ):
        with FakeRuntime(tmp_path / "cri", **{**whole, method: body}):
            assert complaint(tmp_path / "cri") == "its answer cannot be read"


def test_an_answer_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "cri"
    many = encode("ListPodSandboxResponse", items=[{"id": "x" * 1000}] * 5000)
    answers = hosted(web="a1")
    answers["ListPodSandbox"] += many  # more than the 4 MiB that gRPC takes by itself
    with FakeRuntime(path, **answers):
        assert find_pod(path, "web", timeout_s=PATIENT_S) is not None
    answers["ListPodSandbox"] = bytes(ANSWER_LEN_MAX + 1)
    with FakeRuntime(path, **answers):
        assert complaint(path) == "its answer is too long"


def test_nothing_is_written_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "cri", tmp_path / ("x" * 200)):
        complaint(path)
    assert capfd.readouterr() == ("", "")


def test_a_proxy_of_the_environment_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    path = tmp_path / "cri"
    with FakeRuntime(path, **hosted(web="a1")), CriClient(path, timeout_s=PATIENT_S) as client:
        assert [each.id for each in client.call("ListPodSandbox").items] == ["a1"]
