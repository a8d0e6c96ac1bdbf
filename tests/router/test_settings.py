"""The router's command line: good values, and one line for each bad one."""

from __future__ import annotations

import pytest

from base.errors import ConfigError
from router import daemon
from router.settings import MTU_AUTO, RouterSettings, parse


def test_defaults() -> None:
    settings = parse([])
    assert settings.control_socket == "/run/weave/router.sock"
    assert (settings.bridge, settings.host, settings.port) == ("weave", "", 6783)
    assert (settings.mtu, settings.capture, settings.loops) == (MTU_AUTO, "tap", "auto")
    assert settings.log_level == "info"
    assert not settings.adopt
    assert parse(["--adopt"]).adopt
    assert not settings.packet_debug
    assert parse(["--pkt-debug"]).packet_debug


def test_every_option() -> None:
    line = (
        "--control-socket /tmp/r.sock --weave-bridge br0 --host 10.1.2.3 --port 7000 --mtu 9000"
        " --capture packet --loops two --bufsz 4 --log-level debug"
    )
    settings = parse(line.split())
    assert settings.control_socket == "/tmp/r.sock"
    assert (settings.bridge, settings.host, settings.port) == ("br0", "10.1.2.3", 7000)
    assert (settings.mtu, settings.capture, settings.loops) == (9000, "packet", "two")
    assert (settings.buffer_mb, settings.log_level) == (4, "debug")


@pytest.mark.parametrize(("text", "mtu"), [("auto", 0), ("0", 0), ("576", 576), ("65535", 65535)])
def test_mtus(text: str, mtu: int) -> None:
    assert parse(["--mtu", text]).mtu == mtu


def test_any_address_is_no_address() -> None:
    assert parse(["--host", "0.0.0.0"]).host == ""


BAD = {
    "--port": ["0", "65536", "-1", "x", ""],
    "--mtu": ["575", "65536", "-1", "1500.5", "big", "", "٥٧٦"],
    "--host": ["host.example", "10.0.0", "fd00::1", "10.0.0.256"],
    "--weave-bridge": ["", "a" * 16, "a/b", "a b", "a\tb"],
    "--capture": ["pcap", "TAP", ""],
    "--loops": ["three", "1"],
    "--bufsz": ["0", "1025", "x"],
    "--log-level": ["loud", "INFO"],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_a_bad_value_is_one_line_that_names_the_option(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=option) as err:
        parse([f"{option}={value}"])
    assert "\n" not in str(err.value)
    assert daemon.main([f"{option}={value}"]) == 1
    out, line = capsys.readouterr()
    assert out == ""
    assert line == f"weft: {err.value}\n"


@pytest.mark.parametrize("argv", [["--no-such-option"], ["positional"], ["--port"]])
def test_what_is_no_option(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.main(argv) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_do_not_change() -> None:
    settings: RouterSettings = parse([])
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]
