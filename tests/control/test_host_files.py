"""Where the host's files and processes are seen: paths and links, in a root that is elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from cni.errors import NetnsGoneError
from control.host.files import HostFiles
from tests.cni.wires import new_netns
from tests.control.processes import weft
from tests.native.namespace import in_new_netns


def _root(folder: Path) -> Path:
    """A host's root with the links that hosts have."""
    root = folder / "host"
    for name in ("run/netns", "var", "etc", "proc"):
        (root / name).mkdir(parents=True)
    (root / "var" / "run").symlink_to("/run")
    (root / "run" / "netns" / "of-process").symlink_to("/proc/4711/ns/net")
    (root / "run" / "relative").symlink_to("../etc")
    (root / "loop").symlink_to("/loop")
    (root / "out").symlink_to("../../../../../../../../../../etc")
    return root


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/run/netns/blue", "{root}/run/netns/blue"),
        ("/var/run/netns/blue", "{root}/run/netns/blue"),
        ("/var/run/../lib/x", "{root}/lib/x"),
        ("/run/netns/of-process", "/hostproc/4711/ns/net"),
        ("/var/run/netns/of-process", "/hostproc/4711/ns/net"),
        ("/proc/1/ns/net", "/hostproc/1/ns/net"),
        ("//proc/./1/../2", "/hostproc/./1/../2"),
        ("/proc", "/hostproc"),
        ("/procession", "{root}/procession"),
        ("/run/relative/x", "{root}/etc/x"),
        ("/out/passwd", "{root}/etc/passwd"),
        ("/../../x", "{root}/x"),
        ("/", "{root}"),
        ("relative/path", "relative/path"),
        ("", ""),
    ],
)
def test_paths(tmp_path: Path, path: str, seen: str) -> None:
    root = _root(tmp_path)
    assert HostFiles(str(root), "/hostproc").path(path) == seen.format(root=root)


def test_links_that_never_end(tmp_path: Path) -> None:
    root = _root(tmp_path)
    with pytest.raises(ConfigError, match="/loop/x: too many symbolic links"):
        HostFiles(str(root)).path("/loop/x")


def test_on_the_host_itself_nothing_is_changed() -> None:
    for path in ("/var/run/netns/blue", "/proc/self/ns/net", "/a//b/../c"):
        assert HostFiles().path(path) == path


def test_links_into_proc_without_another_root(tmp_path: Path) -> None:
    (tmp_path / "blue").symlink_to("/proc/4711/ns/net")
    files = HostFiles("", "/hostproc")
    assert files.path(f"{tmp_path}/blue") == "/hostproc/4711/ns/net"
    assert files.path("/etc") == "/etc"


@given(st.text(alphabet="/.abc\0", max_size=12))
def test_no_path_leads_out(path: str) -> None:
    seen = HostFiles("/no/such/root", "/no/such/proc").path("/" + path)
    assert seen.startswith("/no/such/root")
    assert ".." not in seen.split("/")


def test_options_are_checked(tmp_path: Path) -> None:
    assert HostFiles.of("", "/proc") == HostFiles.of("/", "/proc/") == HostFiles()
    assert HostFiles.of(f"{tmp_path}/", "/proc").root == str(tmp_path)
    for root in ("relative", f"{tmp_path}/none", "/etc/passwd"):
        with pytest.raises(ConfigError, match="--host-root: "):
            HostFiles.of(root, "/proc")
    for proc in ("", "proc", str(tmp_path)):
        with pytest.raises(ConfigError, match="--proc-path: "):
            HostFiles.of("", proc)


def test_wrong_options_end_the_start(tmp_path: Path) -> None:
    for option in ("--host-root", "--proc-path"):
        done = weft(
            *("control", option, f"{tmp_path}/none", "--db-prefix", f"{tmp_path}/x-"),
            *("--control-socket", f"{tmp_path}/r", "--http-addr", "", "--ipalloc-range", ""),
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith(f'weft: {option}: "{tmp_path}/none" is no ')
        assert done.stderr.count("\n") == 1


@in_new_netns
def test_namespaces_by_the_hosts_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    (tmp_path / "hostproc").symlink_to("/proc")  # stands in for a mount
    with new_netns() as inner:
        child = inner.run(lambda: subprocess.Popen(["sleep", "60"]))
        try:
            (tmp_path / "run" / "blue").symlink_to(f"/proc/{child.pid}/ns/net")
            files = HostFiles.of(str(tmp_path), str(tmp_path / "hostproc"))
            for path in ("/var/run/blue", f"/proc/{child.pid}/ns/net"):
                with files.netns(path) as found:
                    assert found.ident == inner.ident
                    assert found.path == path
            with pytest.raises(NetnsGoneError, match="/run/red"):
                files.netns("/run/red")
            assert files.read("/run/red", 1) is None
        finally:
            child.kill()
            child.wait()
    assert os.path.lexists(tmp_path / "run" / "blue")
