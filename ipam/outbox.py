"""What waits to be told until it is durable.

Events of the open batch move on with it: sealed while its change is written, released when that is
done. State that is to be sent is encoded at the release, so it is the state just committed.
"""

from __future__ import annotations

from collections.abc import Callable

from base.errors import AllocationError, NotStoredError
from base.names import PeerName
from ipam.events import Answered, Broadcast, Event, Notice, SendUnicast, TellOutside, Value

#: Answers once more from the committed state: None if the request has to wait again.
Redo = Callable[[], Answered | None]


class _StateFor:
    """A unicast of our state; its bytes are made later."""

    __slots__ = ("peer",)

    def __init__(self, peer: PeerName) -> None:
        self.peer = peer


class _Batch:
    __slots__ = ("events", "recorded", "redos", "sources", "states")

    def __init__(self) -> None:
        self.events: list[Event | _StateFor] = []
        self.redos: dict[int, Redo] = {}
        self.recorded: dict[int, int] = {}
        self.sources: set[PeerName | None] = set()
        self.states: set[PeerName] = set()


class Outbox:
    """See the module. ``encode_update`` gives the unicast that tells our shown state."""

    def __init__(self, encode_update: Callable[[], bytes]) -> None:
        self._encode_update = encode_update
        self._open = _Batch()
        self._sealed: _Batch | None = None
        self._released: list[Event] = []

    @property
    def is_sealed(self) -> bool:
        """Whether a batch is under way to the disk."""
        return self._sealed is not None

    # --- in --------------------------------------------------------------------------------------

    def answer(
        self,
        request: int,
        value: Value = None,
        *,
        recorded: int | None = None,
        redo: Redo | None = None,
    ) -> None:
        """Success. ``recorded``: an address newly held for it, which a cancellation gives back.

        ``redo``: for answers that rest on nothing new, should the batch be undone.
        """
        self._open.events.append(Answered(request, value))
        if recorded is not None:
            self._open.recorded[request] = recorded
        if redo is not None:
            self._open.redos[request] = redo

    def fail(self, request: int, error: AllocationError) -> None:
        """The request's error."""
        self._open.events.append(Answered(request, None, error))

    def send(self, peer: PeerName, data: bytes) -> None:
        """A unicast that tells no state."""
        self._open.events.append(SendUnicast(peer, data))

    def send_state(self, peer: PeerName) -> None:
        """Our state to one peer, once a batch."""
        if peer not in self._open.states:
            self._open.states.add(peer)
            self._open.events.append(_StateFor(peer))

    def broadcast(self, source: PeerName | None = None) -> None:
        """Our state to all, once a batch and source."""
        if source not in self._open.sources:
            self._open.sources.add(source)
            self._open.events.append(Broadcast(source))

    def tell_outside(self) -> None:
        """Our addresses outside the range to all."""
        self._open.events.append(TellOutside())

    def notice(self, text: str, *, warning: bool = False) -> None:
        """A line for the operator."""
        self._open.events.append(Notice(text, warning))

    def cancel(self, request: int, error: AllocationError) -> int | None:
        """Replace an unreleased answer: the address that had been recorded for it, if any."""
        for batch in (self._open, self._sealed):
            if batch is None:
                continue
            addr = batch.recorded.pop(request, None)
            if addr is not None:
                batch.events = [
                    Answered(request, None, error)
                    if isinstance(event, Answered) and event.request == request
                    else event
                    for event in batch.events
                ]
                return addr
        return None

    # --- out -------------------------------------------------------------------------------------

    def seal(self) -> None:
        """The open batch goes to the disk; a new one begins."""
        self._sealed, self._open = self._open, _Batch()

    def release(self) -> None:
        """The sealed batch is durable."""
        if self._sealed is not None:
            for event in self._sealed.events:
                self._released.append(
                    SendUnicast(event.peer, self._encode_update())
                    if isinstance(event, _StateFor)
                    else event
                )
            self._sealed = None

    def rollback(self, reason: str) -> None:
        """Neither batch happened: nothing is sent, answers become errors or are given anew."""
        for batch in (self._sealed, self._open):
            if batch is None:
                continue
            for event in batch.events:
                if isinstance(event, Notice):
                    self._released.append(event)
                elif isinstance(event, Answered):
                    again = self._again(event, batch.redos.get(event.request), reason)
                    if again is not None:
                        self._released.append(again)
        self._sealed, self._open = None, _Batch()

    @staticmethod
    def _again(event: Answered, redo: Redo | None, reason: str) -> Answered | None:
        if redo is not None:
            return redo()
        if event.error is not None:
            return event
        error = NotStoredError(f"allocations cannot be stored: {reason}")
        return Answered(event.request, None, error)

    def take(self) -> list[Event]:
        """Released events."""
        taken, self._released = self._released, []
        return taken
