"""What the control link takes for a message, and what it refuses."""

from __future__ import annotations

import pytest

from base import ipc
from base.errors import RemoteProtocolError


@pytest.mark.parametrize("decode", [ipc.decode_for_router, ipc.decode_for_control])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(b"\x81\xa4type\xa1\xff", id="tag that is not UTF-8"),
        pytest.param(b"\x81" + b"\x91" * 100_000 + b"\xc0\xc0", id="nested"),
        pytest.param(b"\x82\xa4type\xa6report\xa1x" + b"\x91" * 100_000, id="nested further in"),
    ],
)
def test_unreadable_bodies_are_the_other_ends_fault(decode: object, body: bytes) -> None:
    assert callable(decode)
    with pytest.raises(RemoteProtocolError):
        decode(body)


def test_keys_are_not_shown() -> None:
    connection = ipc.Connection(b"\xce\0\0\0\0\1", "192.0.2.1", 6783, key=b"secret-secret-secret")
    assert "secret" not in repr(ipc.Snapshot(1, b"", "", connections=(connection,)))
