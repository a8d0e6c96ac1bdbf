"""The introduction of a mesh connection: header, version, encryption, feature maps.

    both ends at once      "weave" min max                       7 bytes
    then, version 2        00                                    no password
                           01 <public key>                       1 + 32 bytes
    then, framed           feature map (gob), sealed as message 0 if encrypted

    or, version 1          feature map (gob), in clear, with the public key among the features; the
                           messages are further values of the same gob stream

Both ends write each part before they read the other's, or they would wait for each other for ever.
Version 1 says less, and what it says nobody vouches for: who has no password can introduce itself
under any name there, and only its first message gives it away. The owner says from which version on
we speak (:class:`mesh.core.MeshOptions`).

What a stranger can make us hold is a header, a key and one frame of FEATURES_LEN_MAX. Source of
truth: mesh specification 3, vectors ``handshake.json`` (error texts are the original's).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from base import gob
from base.errors import CryptoError, PasswordMismatchError, RemoteProtocolError
from crypto.ciphers import transcript
from crypto.handshake import KEY_LEN, KeyPair, session_key
from crypto.tcp import TcpOpener, TcpSealer
from mesh.features import REQUIRED, Features
from mesh.framing import (
    BODY_LEN_MAX,
    FrameReader,
    GobFrameReader,
    PlainOpener,
    PlainSealer,
    frame,
)

MAGIC: Final = b"weave"
HEADER_LEN: Final = 7
VERSION_MIN: Final = 1
VERSION_MAX: Final = 2
#: The first in which the introduction is sealed.
VERSION_SEALED: Final = 2
FEATURES_LEN_MAX: Final = 64 * 1024
OTHER_PASSWORD: Final = "Unable to decrypt TCP msg (other password?)"
_PUBLIC_KEY: Final = "PublicKey"
_KEY_TEXT: Final = re.compile(f"[0-9a-fA-F]{{{2 * KEY_LEN}}}")


class Sealer(Protocol):
    """Turns a message into what the frame carries."""

    def seal(self, message: bytes, /) -> bytes:
        """The next message's box."""
        ...


class Opener(Protocol):
    """Turns what the frame carried into a message."""

    def open(self, box: bytes, /) -> bytes:
        """The next box's message."""
        ...


@dataclass(slots=True, frozen=True)
class IntroDone:
    """The other end's features, and all that the rest of the connection needs.

    ``key`` is the session key, None without a password. ``transcript`` is the digest of all that
    both ends said (:func:`crypto.ciphers.transcript`), empty without a password and in version 1.
    ``frames`` goes on reading where the introduction ended; ``frame`` puts a body on the wire.
    """

    features: Features
    key: bytes | None = field(repr=False)
    transcript: bytes
    sealer: Sealer
    opener: Opener
    frames: FrameReader
    frame: Callable[[bytes], bytes] = frame


class IntroState(enum.Enum):
    """What we wait for."""

    HEADER = enum.auto()
    FLAG = enum.auto()
    KEY = enum.auto()
    FEATURES = enum.auto()
    DONE = enum.auto()


def encode_header(version_min: int, version_max: int) -> bytes:
    """The 7 bytes that open a connection."""
    return MAGIC + bytes((version_min, version_max))


def choose_version(ours: tuple[int, int], header: bytes) -> int:
    """The version that both ranges (min, max) hold, the highest.

    Raises:
        RemoteProtocolError: not our protocol, or no version in common.
    """
    if header[: len(MAGIC)] != MAGIC:
        raise RemoteProtocolError(
            f"remote protocol header not recognised: {_octets(header[: len(MAGIC)])}"
        )
    theirs = (header[5], header[6])
    version = min(ours[1], theirs[1])
    if version < max(ours[0], theirs[0]):
        text = (
            f"remote version range [{theirs[0]},{theirs[1]}] is incompatible with ours "
            f"[{ours[0]},{ours[1]}]"
        )
        if VERSION_MIN <= theirs[1] < ours[0]:
            text += f" (--min-protocol-version {theirs[1]} lets that peer in)"
        raise RemoteProtocolError(text)
    return version


def _octets(data: bytes) -> str:
    return f"[{' '.join(str(octet) for octet in data)}]"


class Intro:
    """One side of one introduction.

    ``features`` is what we say of ourselves; ``password`` None or empty means no encryption. A
    fresh ``keys`` pair is made unless one is given. ``versions`` are the lowest and the highest
    that we speak.
    """

    def __init__(
        self,
        features: Features,
        *,
        outbound: bool,
        password: bytes | None = None,
        keys: KeyPair | None = None,
        versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX),
    ) -> None:
        self._features = features
        self._versions = versions
        self._outbound = outbound
        self._password = password or None
        self._keys = keys
        self._buffer = bytearray()
        self._frames = FrameReader(FEATURES_LEN_MAX)
        self._stream: GobFrameReader | None = None  # in place of the frames in version 1
        self._sealer: Sealer = PlainSealer()
        self._opener: Opener = PlainOpener()
        self._key: bytes | None = None
        self._their_public = b""
        self._feature_message = b""
        self._out = bytearray(encode_header(*versions))
        self.state = IntroState.HEADER

    @property
    def has_bytes(self) -> bool:
        """Whether :meth:`bytes_to_send` has something."""
        return bool(self._out)

    def bytes_to_send(self) -> bytes:
        """What has to be written now; the header at first."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> IntroDone | None:
        """Bytes from the other end → the result, once complete.

        Raises:
            RemoteProtocolError, CryptoError: the connection has to be closed. What
                :meth:`bytes_to_send` holds then may still be sent.
        """
        self._buffer += data
        self._advance()
        if self.state is not IntroState.FEATURES:
            return None
        rest = self._take(len(self._buffer))
        if self._stream is not None:
            self._stream.feed(rest)
            return self._read_open_features(self._stream)
        self._frames.feed(rest)
        return self._read_features()

    def _advance(self) -> None:
        """Go through the parts before the features as far as the bytes reach."""
        if self.state is IntroState.HEADER and len(self._buffer) >= HEADER_LEN:
            if choose_version(self._versions, self._take(HEADER_LEN)) >= VERSION_SEALED:
                self._send_flag()
            else:
                self._send_open_features()
        if self.state is IntroState.FLAG and self._buffer:
            self._check_flag(self._take(1)[0])
        if self.state is IntroState.KEY and len(self._buffer) >= KEY_LEN:
            self._agree(self._take(KEY_LEN))

    def end_of_stream(self) -> RemoteProtocolError | PasswordMismatchError:
        """The error that the end of the stream is in this state."""
        have = bytes(self._buffer)
        if self.state is IntroState.HEADER:
            if not have:
                return RemoteProtocolError("failed to receive remote protocol header: EOF")
            return RemoteProtocolError(
                f"received incomplete remote protocol header ({len(have)} octets instead of "
                f"{HEADER_LEN}): {_octets(have)}; error: unexpected EOF"
            )
        if self.state is IntroState.FEATURES and self._key is not None:
            return PasswordMismatchError("EOF (closed before the peer's features: other password?)")
        return RemoteProtocolError("EOF")

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _send_flag(self) -> None:
        public = self._public()
        self._out += b"\0" if public is None else b"\1" + public
        self.state = IntroState.FLAG

    def _public(self) -> bytes | None:
        """Our public key; None without a password."""
        if self._password is None:
            return None
        self._keys = self._keys or KeyPair.generate()
        return self._keys.public

    def _check_flag(self, flag: int) -> None:
        if flag > 1:
            raise RemoteProtocolError(f"Bad encryption flag {flag}")
        self._check_wish(encrypted=bool(flag))
        if flag:
            self.state = IntroState.KEY
        else:
            self._send_features()

    def _check_wish(self, *, encrypted: bool) -> None:
        if encrypted and self._password is None:
            raise PasswordMismatchError(
                "no password specificed, but peer requested an encrypted connection"
            )
        if not encrypted and self._password is not None:
            raise PasswordMismatchError(
                "password specified, but peer requested an unencrypted connection"
            )

    def _agree(self, their_public: bytes) -> None:
        self._derive(their_public)
        self._send_features()

    def _derive(self, their_public: bytes) -> None:
        if self._keys is None or self._password is None:
            raise AssertionError("a key was awaited without a password")
        if their_public == self._keys.public:
            raise RemoteProtocolError("peer reflected our public key")
        self._their_public = their_public
        self._key = session_key(self._keys.private, their_public, self._password)
        self._sealer = TcpSealer(self._key, self._outbound)
        self._opener = TcpOpener(self._key, self._outbound)

    def _send_features(self) -> None:
        self._feature_message = gob.string_map_stream(self._features.to_map())
        self._out += frame(self._sealer.seal(self._feature_message))
        self.state = IntroState.FEATURES

    def _read_features(self) -> IntroDone | None:
        body = self._frames.next_body()
        if body is None:
            return None
        try:
            message = self._opener.open(body)
        except CryptoError as err:
            raise PasswordMismatchError(OTHER_PASSWORD) from err
        features = Features.from_map(gob.string_map(gob.Decoder(message).next()))
        self._frames.limit = BODY_LEN_MAX
        self.state = IntroState.DONE
        digest = self._transcript(message)
        return IntroDone(features, self._key, digest, self._sealer, self._opener, self._frames)

    def _send_open_features(self) -> None:
        """Version 1: what everybody may know of us."""
        pairs = _open(self._features.to_map())
        if (public := self._public()) is not None:
            pairs[_PUBLIC_KEY] = public.hex()
        self._out += gob.string_map_stream(pairs)
        self._stream = GobFrameReader(FEATURES_LEN_MAX)
        self.state = IntroState.FEATURES

    def _read_open_features(self, stream: GobFrameReader) -> IntroDone | None:
        value = stream.opening()
        if value is None:
            return None
        pairs = gob.string_map(value)
        their_key = pairs.get(_PUBLIC_KEY)
        self._check_wish(encrypted=their_key is not None)
        if their_key is not None:
            if not _KEY_TEXT.fullmatch(their_key):
                raise RemoteProtocolError("PublicKey is no key")
            self._derive(bytes.fromhex(their_key))
        features = Features.from_map(_open(pairs))
        stream.limit = BODY_LEN_MAX
        self.state = IntroState.DONE
        return IntroDone(
            features, self._key, b"", self._sealer, self._opener, stream, gob.bytes_value
        )

    def _transcript(self, their_message: bytes) -> bytes:
        if self._keys is None:
            return b""
        ours, theirs = self._keys.public, self._their_public
        if self._outbound:
            return transcript(ours, theirs, self._feature_message, their_message)
        return transcript(theirs, ours, their_message, self._feature_message)


def _open(pairs: Mapping[str, str]) -> dict[str, str]:
    """The features that version 1 knows."""
    return {key: value for key, value in pairs.items() if key in REQUIRED}
