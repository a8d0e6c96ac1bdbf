"""The list of ``--http-addr``: what it may say, what is listened on, what is left behind."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from control.cli.options import DEFAULT_HTTP_ADDR
from control.http_addr import UnixAddr, listen_all, parse_http_addrs


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        (" ", []),
        ("/run/weave/weave.sock", ["/run/weave/weave.sock"]),
        (DEFAULT_HTTP_ADDR, ["/run/weave/weave.sock", "127.0.0.1:6784"]),
        ("localhost:1 , [::1]:65535", ["127.0.0.1:1", "[::1]:65535"]),
    ],
)
def test_parses(text: str, addresses: list[str]) -> None:
    assert [str(address) for address in parse_http_addrs(text)] == addresses


@pytest.mark.parametrize(
    "text",
    [
        *("nowhere", "run/weave.sock", "127.0.0.1", "127.0.0.1:", ":6784", "127.0.0.1:0"),
        *("1.2.3.4:65536", "host1:6784", "::1:6784", "[127.0.0.1]:1", "127.0.0.1:٣"),
        *("/a,", ",", "[::1%lo]"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--http-addr: .* is no address; give absolute paths"):
        parse_http_addrs(text)


@given(st.text())
def test_any_text(text: str) -> None:
    try:
        addresses = parse_http_addrs(text)
    except ConfigError:
        return
    again = ",".join(str(each) for each in addresses)
    if not any(isinstance(each, UnixAddr) for each in addresses):
        assert parse_http_addrs(again) == addresses


def test_listens_on_all_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "api.sock"
    with socket.socket() as taken, contextlib.ExitStack() as held:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert listen_all("", held) == []
        with pytest.raises(ConfigError) as caught:
            listen_all(f"{path},127.0.0.1:{port}", held)
        assert str(caught.value).startswith(
            f"--http-addr: cannot listen on 127.0.0.1:{port} (Address already in use); "
        )
        assert path.exists(), "what was opened before is closed by its holder"
        held.close()
        assert not path.exists()
        taken.close()
        with contextlib.ExitStack() as mine:
            first, second = listen_all(f"{path},127.0.0.1:{port}", mine)
            assert path.stat().st_mode & 0o777 == 0o660
            assert (first.family, second.family) == (socket.AF_UNIX, socket.AF_INET)
        assert not path.exists()


@pytest.mark.parametrize("address", ["0.0.0.0:6784", "[::]:6784"])
def test_does_not_open_every_interface(address: str) -> None:
    with (
        contextlib.ExitStack() as held,
        pytest.raises(ConfigError, match="on every interface; name one"),
    ):
        listen_all(address, held)


def test_an_address_of_another_host() -> None:
    with contextlib.ExitStack() as held, pytest.raises(ConfigError, match="--http-addr: cannot"):
        listen_all("192.0.2.1:6784", held)
