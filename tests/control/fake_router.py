"""A router that moves no frame: it speaks the control link over a real socket.

As a class for tests; as a program (``python -m tests.control.fake_router --control-socket PATH``)
for tests of the supervisor: it says that it is ready, answers reports and stops on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from base.counters import COUNTER_NAMES
from base.ipc import (
    SCHEMA_VERSION,
    ForwarderReport,
    MacReport,
    MessageReader,
    ReportRequest,
    RouterHello,
    RouterReady,
    RouterReport,
    Snapshot,
    ToControl,
    ToRouter,
    decode_for_router,
    encode,
)

READY = RouterReady(bridge="weave", interface="vethwe-bridge", udp_port=6783, mtu=1410)


class FakeRouter:
    """Dials on construction. ``receive`` waits; None means that control closed the link."""

    def __init__(self, path: Path, *, hello: bool = True, schema: int = SCHEMA_VERSION) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._reader = MessageReader()
        self._received: list[ToRouter] = []
        if hello:
            self.send(RouterHello(schema, os.getpid(), 1))

    def send(self, message: ToControl) -> None:
        self.socket.sendall(encode(message))

    def receive(self) -> ToRouter | None:
        while not self._received:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += [decode_for_router(body) for body in self._reader.feed(data)]
        return self._received.pop(0)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def report(ident: int, peer: bytes = bytes.fromhex("ce0200000002")) -> RouterReport:
    """A plausible answer to a request."""
    counters = dict.fromkeys(COUNTER_NAMES, 0) | {"captured_frames": 15, "drop_stp": 2}
    return RouterReport(
        id=ident,
        uptime_s=12.5,
        loops="one",
        capture="tap",
        mtu=1410,
        seq=1,
        bridge_repairs=1,
        counters=counters,
        forwarders=(
            ForwarderReport(peer, "host2", "10.0.0.2:6783", 1410, 10, 9, 8000, 7, 6, 5000),
        ),
        macs=(MacReport(bytes.fromhex("62663fb72ec1"), peer, "host2", 30),),
        macs_total=1,
    )


def main() -> int:
    """Stay connected until SIGTERM."""
    path = Path(sys.argv[sys.argv.index("--control-socket") + 1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            with FakeRouter(path) as router:
                router.socket.settimeout(None)
                while (message := router.receive()) is not None:
                    if isinstance(message, Snapshot):
                        router.send(READY)
                    elif isinstance(message, ReportRequest):
                        router.send(report(message.id))
        except OSError:
            pass
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
