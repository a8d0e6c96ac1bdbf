"""One TCP connection: from its first byte to its last, without the rest of the mesh.

    handshaking ──introduced──▶ pending ──overlay acknowledged──▶ established
         │                         │                                   │
         └─────────────────────────┴──────── error, tie, end ──────────┴──▶ closed

The connection reads and writes messages and watches its time-outs. Who the peer is, whether it may
stay and what its messages mean is the core's to decide (:mod:`mesh.core`).

Source of truth: mesh specification 3.1, 5, 6.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple

from base.errors import DecryptError, PasswordMismatchError, RemoteProtocolError
from base.names import PeerName
from crypto.tcp import TAG_LEN
from mesh.features import Features
from mesh.framing import BODY_LEN_MAX
from mesh.gossip import SendQueue
from mesh.intro import OTHER_PASSWORD, Intro, IntroDone, IntroState
from mesh.peer import Peer
from mesh.protocol import Tag

HEADER_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0
#: No peer says why it closes; these are the reasons to do so before the first message.
REFUSED: Final = "refused: too many connections there, or another router has our name"
HEARTBEAT_S: Final = 30.0


class ConnectionState(enum.Enum):
    """See the diagram above."""

    HANDSHAKING = "handshaking"
    PENDING = "pending"
    ESTABLISHED = "established"
    CLOSED = "closed"


class Message(NamedTuple):
    """Tag and payload."""

    tag: int
    payload: bytes


class Connection:
    """State of one connection. ``addr`` is the remote ``IP:port``.

    ``target`` is the address that was dialled, None for inbound; ``accept_new`` whether the peer
    may be one that we never heard of; ``trusts`` whether ``addr`` lies in a trusted subnet.
    """

    def __init__(
        self,
        ident: int,
        intro: Intro,
        ourself: PeerName,
        now: float,
        *,
        addr: str,
        target: str | None,
        accept_new: bool,
        conn_id: int,
        trusts: bool,
    ) -> None:
        self.ident = ident
        self.addr = addr
        self.target = target
        self.accept_new = accept_new
        self.conn_id = conn_id
        self.trusts = trusts
        self.opened_at = now
        self.state = ConnectionState.HANDSHAKING
        self.queue = SendQueue(ourself)
        self.peer: Peer | None = None
        self.features: Features | None = None
        self.uid = 0
        self.key: bytes | None = None
        self.overlays: tuple[str, ...] = ()
        self.compatible = False
        self.restarted_peer = False
        self.registered = False
        #: When a message last came; None before the first.
        self.heard_at: float | None = None
        self._intro = intro
        self._done: IntroDone | None = None
        self._read_deadline = now + HEADER_TIMEOUT_S
        self._heartbeat_at: float | None = None

    @property
    def outbound(self) -> bool:
        """Whether we dialled."""
        return self.target is not None

    @property
    def encrypted(self) -> bool:
        """Whether messages are sealed."""
        return self._done is not None and self._done.key is not None

    @property
    def transcript(self) -> bytes:
        """Digest of the introduction; empty without a password."""
        return b"" if self._done is None else self._done.transcript

    @property
    def trusted(self) -> bool:
        """Whether both ends trust the path, so that datagrams go in clear."""
        return self.trusts and self.features is not None and self.features.trusted

    @property
    def deadline(self) -> float:
        """When :meth:`check_time` has something to do."""
        if self._heartbeat_at is None:
            return self._read_deadline
        return min(self._read_deadline, self._heartbeat_at)

    # --- reading ---------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> Iterator[IntroDone | Message]:
        """What the bytes complete, in order. The caller acts on each before it asks for the next.

        Raises:
            RemoteProtocolError, CryptoError: the connection has to be closed.
        """
        if self._done is None:
            before = self._intro.state
            done = self._intro.receive(data)
            if before is IntroState.HEADER and self._intro.state is not IntroState.HEADER:
                self._read_deadline = now + READ_TIMEOUT_S
            if done is None:
                return
            self._done = done
            self.features = done.features
            self.key = done.key
            self.uid = self.conn_id ^ done.features.conn_id
            yield done
        else:
            self._done.frames.feed(data)
        while self.state is not ConnectionState.CLOSED:
            body = self._done.frames.next_body()
            if body is None:
                return
            self._read_deadline = now + READ_TIMEOUT_S
            message = self._open(self._done, body)
            self.heard_at = now
            if message:
                yield Message(message[0], message[1:])

    def _open(self, done: IntroDone, body: bytes) -> bytes:
        try:
            return done.opener.open(body)
        except DecryptError as err:
            if self.heard_at is None:  # version 1: the introduction proved nothing
                raise PasswordMismatchError(OTHER_PASSWORD) from err
            raise

    def end_of_stream(self) -> RemoteProtocolError | PasswordMismatchError:
        """What the end of the stream means now."""
        if self._done is None:
            return self._intro.end_of_stream()
        return RemoteProtocolError("EOF" if self.heard_at is not None else REFUSED)

    # --- writing ---------------------------------------------------------------------------------

    def confirm(self, now: float) -> None:
        """The connection was added: heartbeats start."""
        self.state = ConnectionState.PENDING
        self._heartbeat_at = now + HEARTBEAT_S
        self._read_deadline = now + READ_TIMEOUT_S

    def check_time(self, now: float) -> str | None:
        """Queue a heartbeat when it is due; the reason to close when the peer is silent."""
        if now >= self._read_deadline:
            return "read timeout"
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_at += HEARTBEAT_S * (1 + (now - self._heartbeat_at) // HEARTBEAT_S)
            if not self.queue.add_message(Tag.HEARTBEAT):
                return "peer does not read"
        return None

    @property
    def wants_to_send(self) -> bool:
        """Whether :meth:`bytes_to_send` may have something."""
        return bool(self.queue) or self._intro.has_bytes

    def last_words(self) -> bytes:
        """What is left to say of our introduction, for a connection that is being closed."""
        return self._intro.bytes_to_send()

    def bytes_to_send(self) -> bytes:
        """Everything that waits to be sent, sealed and framed. Ask when the socket can take it.

        Raises:
            NonceExhaustedError: the connection has to be closed.
        """
        out = [self._intro.bytes_to_send()]
        if self._done is not None:
            limit = BODY_LEN_MAX - (TAG_LEN if self.encrypted else 0)
            # a message that is too long is lost; sealing it would have used up a nonce
            out.extend(
                self._done.frame(self._done.sealer.seal(message))
                for message in self.queue.next_messages()
                if len(message) <= limit
            )
        return b"".join(out)
