"""The introduction of a mesh connection: header, version, encryption, feature maps.

    both ends at once      "weave" min max                       7 bytes
    then, version 2        00                                    no password
                           01 <public key>                       1 + 32 bytes
    then, framed           feature map (gob), sealed as message 0 if encrypted

Both ends write each part before they read the other's, or they would wait for each other for ever.
Version 1, one gob stream per direction without framing, is not spoken: every Weave since 1.2 has
version 2, and version 1 shows its features in clear.

What a stranger can make us hold is a header, a key and one frame of FEATURES_LEN_MAX. Source of
truth: mesh specification 3, vectors ``handshake.json`` (error texts are the original's).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, Protocol

from base import gob
from base.errors import CryptoError, PasswordMismatchError, RemoteProtocolError
from crypto.ciphers import transcript
from crypto.handshake import KEY_LEN, KeyPair, session_key
from crypto.tcp import TcpOpener, TcpSealer
from mesh.features import Features
from mesh.framing import BODY_LEN_MAX, FrameReader, PlainOpener, PlainSealer, frame

MAGIC: Final = b"weave"
HEADER_LEN: Final = 7
VERSION_MIN: Final = 2
VERSION_MAX: Final = 2
FEATURES_LEN_MAX: Final = 64 * 1024


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
    both ends said (:func:`crypto.ciphers.transcript`), empty without a password. ``frames`` goes on
    reading where the introduction ended.
    """

    features: Features
    key: bytes | None = field(repr=False)
    transcript: bytes
    sealer: Sealer
    opener: Opener
    frames: FrameReader


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
        if theirs[1] == 1:
            text += " (protocol version 1 is not spoken here: that peer needs Weave 1.2 or later)"
        raise RemoteProtocolError(text)
    return version


def _octets(data: bytes) -> str:
    return f"[{' '.join(str(octet) for octet in data)}]"


class Intro:
    """One side of one introduction.

    ``features`` is what we say of ourselves; ``password`` None or empty means no encryption. A
    fresh ``keys`` pair is made unless one is given.
    """

    def __init__(
        self,
        features: Features,
        *,
        outbound: bool,
        password: bytes | None = None,
        keys: KeyPair | None = None,
    ) -> None:
        self._features = features
        self._outbound = outbound
        self._password = password or None
        self._keys = keys
        self._buffer = bytearray()
        self._frames = FrameReader(FEATURES_LEN_MAX)
        self._sealer: Sealer = PlainSealer()
        self._opener: Opener = PlainOpener()
        self._key: bytes | None = None
        self._their_public = b""
        self._feature_message = b""
        self._out = bytearray(encode_header(VERSION_MIN, VERSION_MAX))
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
        self._frames.feed(self._take(len(self._buffer)))
        return self._read_features()

    def _advance(self) -> None:
        """Go through the parts before the features as far as the bytes reach."""
        if self.state is IntroState.HEADER and len(self._buffer) >= HEADER_LEN:
            choose_version((VERSION_MIN, VERSION_MAX), self._take(HEADER_LEN))
            self._send_flag()
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
        if self._password is None:
            self._out += b"\0"
        else:
            self._keys = self._keys or KeyPair.generate()
            self._out += b"\1" + self._keys.public
        self.state = IntroState.FLAG

    def _check_flag(self, flag: int) -> None:
        if flag > 1:
            raise RemoteProtocolError(f"Bad encryption flag {flag}")
        if self._password is None:
            if flag:
                raise PasswordMismatchError(
                    "no password specificed, but peer requested an encrypted connection"
                )
            self._send_features()
        elif not flag:
            raise PasswordMismatchError(
                "password specified, but peer requested an unencrypted connection"
            )
        else:
            self.state = IntroState.KEY

    def _agree(self, their_public: bytes) -> None:
        if self._keys is None or self._password is None:
            raise AssertionError("a key was awaited without a password")
        if their_public == self._keys.public:
            raise RemoteProtocolError("peer reflected our public key")
        self._their_public = their_public
        self._key = session_key(self._keys.private, their_public, self._password)
        self._sealer = TcpSealer(self._key, self._outbound)
        self._opener = TcpOpener(self._key, self._outbound)
        self._send_features()

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
            raise PasswordMismatchError("Unable to decrypt TCP msg (other password?)") from err
        features = Features.from_map(gob.string_map(gob.Decoder(message).next()))
        self._frames.limit = BODY_LEN_MAX
        self.state = IntroState.DONE
        digest = self._transcript(message)
        return IntroDone(features, self._key, digest, self._sealer, self._opener, self._frames)

    def _transcript(self, their_message: bytes) -> bytes:
        if self._keys is None:
            return b""
        ours, theirs = self._keys.public, self._their_public
        if self._outbound:
            return transcript(ours, theirs, self._feature_message, their_message)
        return transcript(theirs, ours, their_message, self._feature_message)
