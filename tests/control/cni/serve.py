"""A node's CNI service as a process in its own network namespace: ``FOLDER [UNIVERSE [DEFAULT]]``.

Prints a line when it answers. ``not-ready`` in the folder is what STATUS is told.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import anyio

from base import log
from cni.attach import Attacher
from cni.codes import Code
from control.attachment_start import prepare, settle
from control.attachment_store import AttachmentStore
from control.attachments import Attachments
from control.cni.service import CniService, CniSettings
from control.state import StateStore
from tests.control.cni.book import Book


async def main(folder: Path, universe: str, default: str) -> None:
    def readiness() -> tuple[Code, str] | None:
        with contextlib.suppress(FileNotFoundError):
            return Code.UNAVAILABLE, (folder / "not-ready").read_text().strip()
        return None

    book = Book(folder, universe, default)
    with contextlib.ExitStack() as held:
        store = AttachmentStore(held.enter_context(StateStore.open(f"{folder}/weft-")))
        attacher = Attacher()
        held.callback(attacher.close)
        found = prepare(store, attacher, "weave")
        attachments = Attachments(store, attacher)
        await settle(found, attachments, book)
        settings = CniSettings(folder / "cni.sock", folder / "state")
        service = CniService(settings, attachments, book, readiness=readiness)
        held.callback(service.close)
        async with anyio.create_task_group() as tasks:
            await tasks.start(service.run)
            print("ready", flush=True)


if __name__ == "__main__":
    log.setup("debug", "kv")
    where, *ranges = sys.argv[1:]
    world, *subnet = ranges or ["10.32.0.0/16"]
    anyio.run(main, Path(where), world, subnet[0] if subnet else world)
