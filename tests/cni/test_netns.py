"""Namespaces by path, process, name and descriptor; what is none is refused; threads come home."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from base.errors import PlatformError
from cni import netns as module
from cni.attach import Wanted
from cni.errors import NetnsError, NetnsGoneError
from cni.netns import Netns, NetnsId
from tests.cni.wires import Wire, addresses_in, interface, links_in, new_netns, sysctl_in
from tests.native.namespace import in_new_netns


@in_new_netns
def test_by_process_path_and_descriptor() -> None:
    with new_netns() as inner:
        child = inner.run(lambda: subprocess.Popen(["sleep", "60"]))
        try:
            with (
                Netns.of_process(child.pid) as by_pid,
                Netns.open(f"/proc/{child.pid}/ns/net") as by_path,
                Netns.from_fd(inner.fileno()) as by_fd,
            ):
                assert by_pid.ident == by_path.ident == by_fd.ident == inner.ident
                assert links_in(by_pid) == {"lo"}
        finally:
            child.kill()
            child.wait()


@in_new_netns
def test_a_descriptor_stays_its_owners() -> None:
    with new_netns() as inner:
        with Netns.from_fd(inner.fileno()):
            pass
        assert inner.run(NetnsId.of_caller) == inner.ident


@in_new_netns
def test_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMED", tmp_path)
    with new_netns() as inner:
        (tmp_path / "blue").symlink_to(f"/proc/self/fd/{inner.fileno()}")
        with Netns.named("blue") as found:
            assert found.ident == inner.ident
    with pytest.raises(NetnsGoneError, match="no such network namespace"):
        Netns.named("red")
    for name in ("", "..", "a/b"):
        with pytest.raises(NetnsError):
            Netns.named(name)


@in_new_netns
def test_a_process_without_proc() -> None:
    script = "umount -l /proc && echo ready && exec sleep 60"
    argv = ["unshare", "--mount", "sh", "-c", script]
    with Wire.up() as wire, new_netns() as inner:
        child = inner.run(lambda: subprocess.Popen(argv, stdout=subprocess.PIPE))
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            with Netns.of_process(child.pid) as found:
                wire.attacher.attach(found, Wanted("c1", (interface("10.32.0.2/12"),)))
            assert addresses_in(inner) == ["10.32.0.2/12"]
            assert sysctl_in(inner, "ipv4/neigh/ethwe/base_reachable_time_ms") == "5000"
        finally:
            child.kill()
            child.communicate()


@in_new_netns
def test_what_is_gone() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(NetnsGoneError):
        Netns.of_process(ended.pid)
    with pytest.raises(NetnsGoneError):
        Netns.open("/run/no/such/namespace")


@in_new_netns
def test_what_is_no_network_namespace(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # to open it for real would wait for ever
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "file").write_text("")
    names = [str(tmp_path / name) for name in ("pipe", "socket", "file")]
    for path in [*names, str(tmp_path), "/dev/zero", "/proc/self/ns/mnt", "a\0b", "x/" * 3000]:
        with pytest.raises(NetnsError):
            Netns.open(path)
    listener.close()


@in_new_netns
def test_the_hosts_own_is_refused() -> None:
    with (
        Netns.open("/proc/thread-self/ns/net") as own,
        pytest.raises(NetnsError, match="host's own"),
    ):
        own.refuse_own()
    with new_netns() as inner:
        inner.refuse_own()


@in_new_netns
def test_no_thread_stays_inside() -> None:
    here = NetnsId.of_caller()
    with new_netns() as inner:
        before = set(threading.enumerate())  # some may end meanwhile
        assert inner.run(NetnsId.of_caller) == inner.ident
        with pytest.raises(ZeroDivisionError):
            inner.run(lambda: 1 // 0)
        assert set(threading.enumerate()) <= before
    assert NetnsId.of_caller() == here


@in_new_netns
def test_a_closed_namespace_is_not_entered() -> None:
    inner = new_netns()
    inner.close()
    inner.close()
    with pytest.raises(PlatformError, match="enter network namespace"):
        inner.run(lambda: None)
