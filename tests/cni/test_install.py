"""What setup-cni writes, keeps and removes: cni specification 11 and 17."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from base.errors import ConfigError
from cni.install import (
    CONFLIST,
    NAMES,
    Installed,
    Wishes,
    conflist,
    install_plugins,
    is_managed,
    plugin_folder,
    portmap_versions,
    remove_records,
    uninstall,
    write_conflist,
)
from tests.control.processes import weft

WEAVES = {
    "cniVersion": "0.3.0",
    "name": "weave",
    "plugins": [
        {"name": "weave", "type": "weave-net", "hairpinMode": True},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ],
}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "opt" / "bin"
    install_plugins(folder, "1.0", Installed())
    return folder


def test_executable_and_names(plugins: Path) -> None:
    target = plugins / "weft-plugin-1.0"
    assert target.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in plugins.iterdir()} == {"weft-plugin-1.0", *NAMES}
    for name in NAMES:
        assert (plugins / name).readlink() == Path("weft-plugin-1.0")
        done = subprocess.run(
            [plugins / name],
            env={"CNI_COMMAND": "VERSION"},
            input=b"{}",
            capture_output=True,
            check=True,
        )
        assert b"1.1.0" in done.stdout


def test_again_changes_nothing(plugins: Path) -> None:
    into = Installed()
    install_plugins(plugins, "1.0", into)
    assert into.done == []


def test_a_running_executable_is_replaced(plugins: Path) -> None:
    running = subprocess.Popen(
        [plugins / "weave-net"], env={"CNI_COMMAND": "ADD"}, stdin=subprocess.PIPE
    )
    assert running.stdin is not None
    (plugins / "weft-plugin-1.0").chmod(0o700)
    into = Installed()
    install_plugins(plugins, "1.0", into)
    assert len(into.done) == 1
    running.kill()
    running.wait()
    running.stdin.close()


def test_weaves_installation_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "weave-plugin-2.8.1").write_text("old")
    (tmp_path / "weave-net").symlink_to("weave-plugin-2.8.1")
    (tmp_path / "weave-ipam").write_text("a file from an old release")
    (tmp_path / "loopback").write_text("another's")
    (tmp_path / "weft-plugin-0.9").write_text("ours of before")
    install_plugins(tmp_path, "1.0", Installed())
    assert {path.name for path in tmp_path.iterdir()} == {"weft-plugin-1.0", "loopback", *NAMES}


def test_folders(tmp_path: Path) -> None:
    assert plugin_folder(tmp_path) == tmp_path
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(ConfigError):
            install_plugins(tmp_path / name, "1.0", Installed())
        with pytest.raises(ConfigError):
            write_conflist(tmp_path / name, conflist(Wishes(), None), Installed())
    assert list((tmp_path / "real").iterdir()) == []


def test_executable_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "weft-plugin-1.0").symlink_to(victim)
    with pytest.raises(ConfigError, match="symbolic link"):
        install_plugins(folder, "1.0", Installed())
    assert victim.read_text() == "precious"


def test_conflist() -> None:
    assert conflist(Wishes(), ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "weave",
        "plugins": [
            {"type": "weave-net", "hairpinMode": True, "weaveManaged": True},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def test_conflist_for_an_old_portmap() -> None:
    shape = conflist(Wishes(hairpin=False), ["0.3.1", "0.4.0"])
    assert (shape["cniVersion"], shape["cniVersions"]) == ("0.4.0", ["0.3.1", "0.4.0"])
    assert shape["plugins"][0]["hairpinMode"] is False


def test_conflist_without_portmap_and_with_more() -> None:
    shape = conflist(Wishes(extra=[{"type": "bandwidth"}], pending=Path("/p")), None)
    assert [one["type"] for one in shape["plugins"]] == ["weave-net", "bandwidth"]
    assert shape["plugins"][0]["pendingDir"] == "/p"
    assert shape["cniVersions"][-1] == "1.1.0"


def test_portmap_is_asked() -> None:
    assert portmap_versions(Path("/usr/lib/cni")) == ["0.3.1", "0.4.0", "1.0.0"]
    assert portmap_versions(Path("/nowhere"), "/nowhere:/usr/lib/cni") is not None
    assert portmap_versions(Path("/nowhere")) is None


@pytest.mark.parametrize("text", ["exit 1", "echo nonsense", "echo '{}'", "echo '[]'"])
def test_portmap_that_is_odd(tmp_path: Path, text: str) -> None:
    (tmp_path / "portmap").write_text(f"#!/bin/sh\ncat >/dev/null\n{text}\n")
    (tmp_path / "portmap").chmod(0o755)
    assert portmap_versions(tmp_path) is None


def test_written_when_absent_changed_when_ours(tmp_path: Path) -> None:
    path = tmp_path / CONFLIST
    into = Installed()
    write_conflist(tmp_path, conflist(Wishes(), None), into)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(into.done) == 1
    write_conflist(tmp_path, conflist(Wishes(), None), into)
    assert len(into.done) == 1
    write_conflist(tmp_path, conflist(Wishes(hairpin=False), None), into)
    assert json.loads(path.read_bytes())["plugins"][0]["hairpinMode"] is False
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("hairpin", [True, False])
def test_weaves_own_is_replaced(tmp_path: Path, hairpin: bool) -> None:
    weaves: dict[str, Any] = json.loads(json.dumps(WEAVES))
    weaves["plugins"][0]["hairpinMode"] = hairpin
    (tmp_path / CONFLIST).write_text(json.dumps(weaves))
    (tmp_path / "10-weave.conf").write_text("{}")
    into = Installed()
    write_conflist(tmp_path, conflist(Wishes(), None), into)
    assert len(into.done) == 2
    assert [path.name for path in tmp_path.iterdir()] == [CONFLIST]


@pytest.mark.parametrize(
    "users",
    [
        "not JSON",
        "[]",
        json.dumps({**WEAVES, "cniVersion": "0.4.0"}),
        json.dumps({**WEAVES, "plugins": WEAVES["plugins"][:1]}),
    ],
)
def test_a_users_own_stays(tmp_path: Path, users: str) -> None:
    path = tmp_path / CONFLIST
    path.write_text(users)
    assert not is_managed(users.encode())
    into = Installed()
    write_conflist(tmp_path, conflist(Wishes(), None), into)
    assert path.read_text() == users
    assert len(into.warnings) == 1
    uninstall(tmp_path, tmp_path, into)
    assert path.read_text() == users


def test_conflist_that_is_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text(json.dumps(WEAVES))
    folder = tmp_path / "net.d"
    folder.mkdir()
    (folder / CONFLIST).symlink_to(victim)
    with pytest.raises(ConfigError, match="symbolic link"):
        write_conflist(folder, conflist(Wishes(), None), Installed())
    with pytest.raises(ConfigError, match="symbolic link"):
        uninstall(folder, folder, Installed())
    assert json.loads(victim.read_text()) == WEAVES


def test_uninstall(plugins: Path, tmp_path: Path) -> None:
    configs = tmp_path / "net.d"
    write_conflist(configs, conflist(Wishes(), None), Installed())
    (plugins / "portmap").write_text("another's")
    into = Installed()
    uninstall(plugins, configs, into)
    assert [path.name for path in plugins.iterdir()] == ["portmap"]
    assert list(configs.iterdir()) == []
    assert "conflist" in into.done[0]
    uninstall(plugins, configs, into)
    uninstall(tmp_path / "nowhere", tmp_path / "nowhere", into)


def test_names_of_another_program_stay(tmp_path: Path) -> None:
    (tmp_path / "weave-net").symlink_to("/usr/bin/something")
    uninstall(tmp_path, tmp_path, Installed())
    assert (tmp_path / "weave-net").is_symlink()


def test_records_of_a_node_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "pending-del").mkdir()
    (tmp_path / "pending-del" / "c@eth0.0").touch()
    (tmp_path / "weft-data.db").touch()
    remove_records(tmp_path)
    remove_records(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weft-data.db"]


# --- the command ----------------------------------------------------------------------------------


def setup(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return weft(
        "setup-cni",
        f"--plugin-dir={tmp_path / 'bin'}",
        f"--config-dir={tmp_path / 'net.d'}",
        f"--control-socket={tmp_path / 'router.sock'}",
        *arguments,
    )


def test_node_that_is_not_ready(tmp_path: Path) -> None:
    done = setup(tmp_path)
    assert done.returncode == 1
    assert "the node is not ready (the node service does not answer" in done.stderr
    assert "--wait" in done.stderr
    assert (tmp_path / "bin" / "weave-net").exists()
    assert not (tmp_path / "net.d").exists()


def test_now_and_away_again(tmp_path: Path) -> None:
    extra = '[{"type": "bandwidth"}]'
    done = setup(tmp_path, "--now", "--no-hairpin", f"--extra-plugins={extra}")
    assert done.returncode == 0, done.stderr
    assert "portmap" in done.stderr
    shape = json.loads((tmp_path / "net.d" / CONFLIST).read_text())
    assert [one["type"] for one in shape["plugins"]] == ["weave-net", "bandwidth"]
    assert shape["plugins"][0]["routerSocket"] == str(tmp_path / "cni.sock")
    assert setup(tmp_path, "--uninstall").returncode == 0
    assert list((tmp_path / "bin").iterdir()) == list((tmp_path / "net.d").iterdir()) == []


@pytest.mark.parametrize("extra", ["{", "{}", "[1]", '[{"a": 1}]'])
def test_extra_plugins_that_are_none(tmp_path: Path, extra: str) -> None:
    done = setup(tmp_path, "--now", f"--extra-plugins={extra}")
    assert done.returncode == 1
    assert "--extra-plugins" in done.stderr


def test_defaults_are_the_daemons() -> None:
    from control.cli import options
    from control.cni.service import CNI_SOCKET

    assert str(options.DEFAULT_CONTROL_SOCKET.with_name(CNI_SOCKET)) == "/run/weave/cni.sock"
    assert str(Path(options.DEFAULT_PREFIX).parent) == "/var/lib/weave"
