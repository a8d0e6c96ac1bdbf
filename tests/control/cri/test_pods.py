"""The choice of a pod by name or id, and where its namespace is, from what runtimes say."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from control.cri.pods import (
    Pod,
    PodContainer,
    choose,
    netns_path,
    on_host_network,
    read_containers,
    read_pods,
)
from tests.control.cri.served import CLASSES, status

WEB = Pod("a1b2", "default", "web", ready=True)
DB = Pod("a1c3", "default", "db", ready=True)
OTHER_DB = Pod("d4", "test", "db", ready=True)
OLD_WEB = Pod("b7", "default", "web", ready=False)
BARE = Pod("e5", "", "bare", ready=True)
PODS = [OLD_WEB, WEB, DB, OTHER_DB, BARE]
CONTAINERS = [
    PodContainer("f001", "a1b2", "app"),
    PodContainer("f002", "a1b2", "sidecar"),
    PodContainer("f003", "b7", "sidecar"),
    PodContainer("f104", "a1c3", "app"),
    PodContainer("f005", "nobody", "lost"),
    PodContainer("a1", "e5", "web-log"),
]


@pytest.mark.parametrize(
    ("name", "pod"),
    [
        ("a1b2", WEB),
        ("a1b", WEB),
        ("f001", WEB),
        ("f1", DB),
        ("f00", WEB),  # of an old one, too, but that is not ready
        ("a1", BARE),  # a whole id before the beginnings
        ("web", WEB),
        ("default/web", WEB),
        ("default/db", DB),
        ("test/db", OTHER_DB),
        ("bare", BARE),
        ("sidecar", WEB),
        ("b7", OLD_WEB),
        ("f003", OLD_WEB),
        ("lost", None),
        ("f005", None),
        ("we", None),
        ("default", None),
        ("default/", None),
        ("A1B2", None),
    ],
)
def test_names(name: str, pod: Pod | None) -> None:
    assert choose(name, PODS, CONTAINERS) == pod


@pytest.mark.parametrize(("name", "count"), [("db", 2), ("app", 2), ("a", 3), ("f", 2)])
def test_ambiguous_names(name: str, count: int) -> None:
    with pytest.raises(ConfigError, match=f'container "{name}": {count} pods'):
        choose(name, PODS, CONTAINERS)


def test_a_name_goes_before_the_beginning_of_an_id() -> None:
    beef = Pod("00", "default", "beef", ready=True)
    assert choose("beef", [Pod("beef01", "x", "y", ready=True), beef], []) == beef


def test_several_old_ones_are_several() -> None:
    with pytest.raises(ConfigError, match="2 pods"):
        choose("web", [OLD_WEB, Pod("b8", "test", "web", ready=False)], [])


def answer(info: object) -> object:
    return CLASSES["PodSandboxStatusResponse"].FromString(status(info))


NETWORK = {"type": "network", "path": "/run/netns/x"}


@pytest.mark.parametrize(
    ("info", "path"),
    [
        # containerd and CRI-O; the latter may leave out the process
        (
            {"pid": 7, "runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}, NETWORK]}}},
            "/run/netns/x",
        ),
        ({"runtimeSpec": {"linux": {"namespaces": [NETWORK]}}}, "/run/netns/x"),
        (
            {"pid": 7, "runtimeSpec": {"linux": {"namespaces": [{"type": "network"}]}}},
            P := "/proc/7/ns/net",
        ),
        ({"pid": 7, "runtimeSpec": None}, P),
        ({"pid": 7, "runtimeSpec": {}}, P),
        ({"pid": 7, "runtimeSpec": {"linux": None}}, P),
        ({"pid": 7, "runtimeSpec": {"linux": {"namespaces": None}}}, P),
        ({"pid": 7, "runtimeSpec": {"linux": {"namespaces": [NETWORK | {"path": "x"}]}}}, P),
        ({"pid": 0}, ""),
        ({"pid": -7}, ""),
        ({"pid": "7"}, ""),
        ({"pid": 7, "runtimeSpec": {"linux": {"namespaces": [[]]}}}, ""),
        ({}, ""),
        ([], ""),
        (7, ""),
    ],
)
def test_where_the_namespace_is(info: object, path: str) -> None:
    assert netns_path(answer(info)) == path


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"x":' * 100_000, '"\\ud800"', "\0"])
def test_what_is_no_json(text: str) -> None:
    response = CLASSES["PodSandboxStatusResponse"]
    assert netns_path(response(info=[{"key": "info", "value": text}])) == ""
    assert netns_path(response(info=[{"key": "other", "value": '{"pid": 7}'}])) == ""


def test_the_hosts_network() -> None:
    response = CLASSES["PodSandboxStatusResponse"]
    assert on_host_network(response.FromString(status(network=2)))
    assert not on_host_network(response.FromString(status(network=0)))
    assert not on_host_network(response())


RESPONSES = ("ListPodSandboxResponse", "ListContainersResponse", "PodSandboxStatusResponse")


@given(body=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    for name in RESPONSES:
        with contextlib.suppress(DecodeError):
            read = CLASSES[name].FromString(body)
            if name == "ListPodSandboxResponse":
                pods = read_pods(read)
            elif name == "ListContainersResponse":
                with contextlib.suppress(ConfigError):
                    choose("a", pods, read_containers(read))
            else:
                on_host_network(read)
                netns_path(read)


def test_fields_that_are_missing_or_unknown() -> None:
    response = CLASSES["ListPodSandboxResponse"]
    # an item without fields, then one with an id and a field 200 that nobody has declared
    known = b"\x0a\x00" + b"\x0a\x07" + b"\x0a\x02ab" + b"\xc0\x0c\x01"
    assert read_pods(response.FromString(known)) == [Pod("ab", "", "", ready=True)]
    for cut in (3, 5, 7, 10):
        with pytest.raises(DecodeError):
            response.FromString(known[:cut])
