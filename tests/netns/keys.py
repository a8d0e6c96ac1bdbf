"""Session keys as a test sees them, and sealed datagrams opened by other libraries than ours.

Control hands keys to the router over a Unix socket that only root may use. :class:`KeyTap` sits
between the two and takes note; nothing else than a test may do that, and nothing else can.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import nacl.exceptions
import nacl.secret
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from base.ipc import Delta, MessageReader, Snapshot, decode_for_router
from lab.decode import NAME_LEN, Datagram

_TAG = slice(NAME_LEN + 8, NAME_LEN + 24)
_CIPHERTEXT = slice(NAME_LEN + 24, None)


@dataclass(slots=True, frozen=True)
class Opened:
    """What a sealed datagram was sealed with: key and whole nonce, and the records in it."""

    key: bytes
    nonce: bytes
    records: bytes


class KeyTap:
    """Between the router at ``near`` and control at ``far``, both paths of Unix sockets.

    :attr:`keys` are the keys of all connections so far, newest last, with their ciphers. Each
    direction of each connection has a thread.
    """

    def __init__(self, near: Path, far: Path) -> None:
        self.keys: dict[bytes, str] = {}
        tap, path = self, str(far)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                tap._serve(self.request, path)

        self._server = socketserver.ThreadingUnixStreamServer(str(near), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Both ends must be gone by now: a copying thread ends with its connection."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, router: socket.socket, far: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            try:
                control.connect(far)
            except OSError:
                return  # control is not there yet: the router will call again
            back = threading.Thread(target=_copy, args=(router, control, None))
            back.start()
            _copy(control, router, self._noting())
            back.join()

    def _noting(self) -> Callable[[bytes], None]:
        reader = MessageReader()

        def note(data: bytes) -> None:
            for body in reader.feed(data):
                message = decode_for_router(body)
                if isinstance(message, Snapshot | Delta):
                    for connection in message.connections:
                        if connection.key:
                            self.keys[connection.key] = connection.cipher

        return note


def _copy(
    source: socket.socket, target: socket.socket, note: Callable[[bytes], None] | None
) -> None:
    """Until either end is gone; then the other one goes, too."""
    with suppress(OSError):
        while data := source.recv(1 << 18):
            if note is not None:
                note(data)
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def open_sealed(datagram: Datagram, keys: dict[bytes, str]) -> Opened | None:
    """Try all keys, the newest first, in both directions; None if none of them opens it."""
    wire = datagram.payload
    name, field = wire[:NAME_LEN], wire[NAME_LEN : NAME_LEN + 8]
    for key, cipher in reversed(keys.items()):
        for role in (b"\x80", b"\x00"):
            if cipher == "secretbox":
                nonce = role + bytes(15) + field
                records = _open_secretbox(key, nonce, wire[_TAG] + wire[_CIPHERTEXT])
            else:
                subkey = _subkey(key, role, int.from_bytes(field))
                nonce = role + bytes(3) + field
                sealed = wire[_CIPHERTEXT] + wire[_TAG]
                records = _open_gcm(subkey, nonce, sealed, name + field)
            if records is not None:
                return Opened(key, nonce, records)
    return None


def _open_secretbox(key: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
    try:
        return nacl.secret.SecretBox(key).decrypt(sealed, nonce)
    except nacl.exceptions.CryptoError:
        return None


def _subkey(key: bytes, role: bytes, field: int) -> bytes:
    """As docs/cipher.md says it."""
    epoch = (field & (1 << 63) - 1) >> 20
    info = b"weftnet aes-256-gcm" + role + bytes([field >> 63]) + epoch.to_bytes(8, "big")
    return hmac.digest(key, info, hashlib.sha256)


def _open_gcm(subkey: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    try:
        return AESGCM(subkey).decrypt(nonce, sealed, aad)
    except InvalidTag:
        return None
