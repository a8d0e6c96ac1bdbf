"""The units of deploy/systemd: they name commands and options that exist, and keep the promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from control.cli.main import app
from control.password import CREDENTIAL
from tests.control.processes import ROOT

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))


def _settings(path: Path) -> dict[str, list[str]]:
    """Key → values in order; comments and sections dropped."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
        else:
            assert not line or line.startswith(("#", "[")), line
    return found


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_service(path: Path) -> None:
    settings = _settings(path)
    assert settings["Type"] == ["notify"]
    assert settings["NoNewPrivileges"] == ["yes"]
    assert settings["LimitCORE"] == ["0"], "keys must not reach a core file"
    (start,) = settings["ExecStart"]
    program, verb, *options = shlex.split(start)
    assert program == "/usr/local/bin/weft"
    command = typer.main.get_command(app)
    subcommand = command.commands[verb]  # type: ignore[attr-defined]
    known = {option for parameter in subcommand.params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


def test_the_split_units_and_the_whole_exclude_each_other() -> None:
    assert [path.name for path in SERVICES] == [
        "weft-control.service",
        "weft-router.service",
        "weft.service",
    ]
    whole = _settings(UNITS / "weft.service")
    assert whole["Conflicts"] == ["weft-control.service weft-router.service"]
    assert int(whole["WatchdogSec"][0]) > 0
    for name in ("weft-control.service", "weft-router.service"):
        assert _settings(UNITS / name)["Conflicts"] == ["weft.service"]


@pytest.mark.parametrize("name", ["weft.service", "weft-control.service"])
def test_state_outlives_the_unit_and_no_password_is_in_it(name: str) -> None:
    settings = _settings(UNITS / name)
    assert settings["StateDirectory"] == ["weave"]
    assert settings["StateDirectoryMode"] == ["0700"]
    (start,) = settings["ExecStart"]
    assert "password" not in start
    assert f"#LoadCredential={CREDENTIAL}:" in (UNITS / name).read_text(encoding="ascii")


def test_only_what_touches_the_network_may() -> None:
    router = _settings(UNITS / "weft-router.service")
    assert router["CapabilityBoundingSet"] == ["CAP_NET_ADMIN CAP_NET_RAW"]
    assert router["RestrictNamespaces"] == ["yes"]
    for name in ("weft.service", "weft-control.service"):
        settings = _settings(UNITS / name)
        (capabilities,) = settings["CapabilityBoundingSet"]
        # containers are entered, and the host's packet filter is written
        assert capabilities == "CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_PTRACE"
        assert settings["RestrictNamespaces"] == ["net"]
        assert "ProtectKernelTunables" not in settings, "/proc/sys/net is written"
        assert "AF_NETLINK" in settings["RestrictAddressFamilies"][0].split()
    for name in ("weft.service", "weft-router.service"):
        assert _settings(UNITS / name)["DeviceAllow"] == ["/dev/net/tun rw"]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("70-weft.link", "OriginalName", "weave vethwe*"),
        ("70-weft.link", "MACAddressPolicy", "none"),
        ("70-weft.network", "Name", "weave vethwe*"),
        ("70-weft.network", "Unmanaged", "yes"),
    ],
)
def test_drop_ins(name: str, key: str, value: str) -> None:
    assert _settings(UNITS / name)[key] == [value]


def test_networkmanager() -> None:
    text = (UNITS / "70-weft-networkmanager.conf").read_text(encoding="ascii")
    assert "match-device=interface-name:weave;interface-name:vethwe*\nmanaged=0\n" in text
