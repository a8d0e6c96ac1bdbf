"""Claims about text from users and files: it parses or raises the user's error, in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from base.errors import ConfigError
from base.names import Mac, PeerName, parse_nickname
from control.password import find_password
from control.static_peers import identify, parse, parse_address, snapshot_of
from mesh.maker import join_addr, parse_peer_text, split_addr


def _or_none(parser: Callable[[str], Any], text: str, *errors: type[Exception]) -> Any:
    try:
        return parser(text)
    except errors:
        return None


def _check_message(err: ConfigError, start: str | tuple[str, ...]) -> None:
    """One line, which begins with what it is about (one of them)."""
    assert len(str(err).splitlines()) == 1, repr(str(err))
    assert str(err).startswith(start), str(err)


def names(data: bytes) -> None:
    """Names and addresses, as users and peers write them."""
    text = data.decode("utf-8", "replace")
    for kind in (PeerName, Mac):
        found = _or_none(kind.parse, text, ValueError)
        assert found is None or kind.parse(str(found)) == found
    _or_none(parse_nickname, text, ValueError)
    _or_none(parse_address, text, ConfigError)
    try:
        host, port = parse_peer_text(text)
    except ConfigError as err:
        _check_message(err, ('peer "', 'invalid peer name "'))
    else:
        assert host
        assert port is None or 0 < port < 65536
    split = split_addr(text)
    assert split is None or split_addr(join_addr(*split)) == split


def peers_file(data: bytes) -> None:
    """A peers file is taken whole or refused with one line; each peer of it has a snapshot."""
    try:
        table = parse(data.decode("utf-8", "replace"))
    except ConfigError as err:
        _check_message(err, "peers.toml:")
        return
    for peer in (table.peers[0], table.peers[-1]):
        assert identify(table, "peers.toml", str(peer.name), "") == peer
        snapshot = snapshot_of(table, peer)
        assert len(snapshot.peers) == len(table.peers) - 1


def password(data: bytes) -> None:
    """A password file is used as it is or refused, and its content is in no message."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            found = find_password(Path(file.name), {})
        except ConfigError as err:
            _check_message(err, "--password-file:")
            secret = data.strip().decode("utf-8", "replace")
            if len(secret) >= 16 and secret in str(err):
                raise AssertionError("the message tells the password") from None
            return
    assert found.value is not None
    assert data.startswith(found.value)
    assert found.value.decode("latin-1") not in repr(found) or len(found.value) < 8
