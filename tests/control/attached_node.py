"""A node's attachments over a real state file, a real allocator and a real bridge, for tests.

The test's thread is in a namespace of its own, which is the host; so are the worker threads.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from base.names import PeerName
from cni.attach import Attacher
from cni.netns import Netns
from control.attaching import AttachRequest
from control.attachment_audit import Audit, audit
from control.attachment_service import AttachmentService
from control.attachment_store import Attachment, AttachmentStore
from control.attachments import Attachments
from control.host.address_spec import parse_specs
from control.ipam_addresses import IpamAddresses, owned_by
from control.ipam_service import IpamService
from control.ipam_settings import parse_ipam
from control.ipam_store import IpamStore
from control.state import StateStore
from tests.cni.wires import make_bridge
from tests.native.namespace import in_new_netns

RANGE = "10.32.0.0/16"
DEFAULT_SUBNET = "10.32.1.0/24"
BRIDGE_ADDRESS = "10.32.1.254/16"


def on_a_host(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a host of its own that has a bridge."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        make_bridge("weave", BRIDGE_ADDRESS)
        anyio.run(functools.partial(test, *args, **kwargs))

    marked: Callable[..., None] = pytest.mark.timeout(120)(in_new_netns(run))
    return marked


class Node:
    """One run of a node's attachments; see :func:`running`."""

    def __init__(self, state: StateStore, containers: AttachmentService, ipam: IpamService | None):
        self.state = state
        self.containers = containers
        self.ipam = ipam

    @property
    def attachments(self) -> Attachments:
        return self.containers.attachments

    @property
    def attacher(self) -> Attacher:
        return self.attachments.book.attacher

    @property
    def store(self) -> AttachmentStore:
        return self.attachments.book.store

    async def attach(
        self,
        container: str,
        netns: Netns,
        *specs: str,
        ifname: str = "ethwe",
        bridge: str = "weave",
        timeout_s: float | None = 20,
    ) -> Attachment:
        request = AttachRequest(
            container,
            netns,
            ifname=ifname,
            bridge=bridge,
            addresses=tuple(parse_specs(list(specs))),
            timeout_s=timeout_s,
        )
        return await self.attachments.attach(request)

    async def detach(
        self, container: str, *specs: str, ifname: str = "ethwe", everything: bool = False
    ) -> list[str]:
        wanted = parse_specs(list(specs)) if specs else []
        gone = await self.attachments.detach(container, ifname, wanted, everything=everything)
        return [str(each) for each in gone]

    async def audit(self) -> Audit:
        ipam = self.ipam
        return await audit(
            self.attachments, "weave", None if ipam is None else lambda: owned_by(ipam)
        )

    def owned(self) -> dict[str, list[str]]:
        """What the allocator holds."""
        assert self.ipam is not None
        return {ident: [str(each) for each in cidrs] for ident, cidrs in owned_by(self.ipam)}

    async def is_clean(self) -> bool:
        """Whether :meth:`clean` holds."""
        return await self.audit() == Audit()

    async def clean(self) -> None:
        """Nothing is left over, and nothing is wrong."""
        found = await self.audit()
        assert found == Audit(), found


@asynccontextmanager
async def running(
    folder: Path, *, init: str = "consensus=1", ipam: bool = True
) -> AsyncIterator[Node]:
    """A node on the state file in ``folder``; at the end it stops as if it were killed."""
    with StateStore.open(str(folder / "weft-")) as state:
        containers = AttachmentService(state, "weave")
        service: IpamService | None = None
        try:
            if ipam:
                settings = parse_ipam(RANGE, DEFAULT_SUBNET, init)
                assert settings is not None
                options = settings.options(PeerName.parse("ce:01:00:00:00:01"), "host1", 1)
                service = IpamService(options, IpamStore(state), containers.holdings())
                service.allocator.set_targets(0, 0.0)
            async with anyio.create_task_group() as tasks:
                addresses = None
                if service is not None:
                    await tasks.start(service.run)
                    addresses = IpamAddresses(service)
                await tasks.start(containers.run, addresses)
                yield Node(state, containers, service)
                tasks.cancel_scope.cancel()
        finally:
            containers.close()


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    with anyio.fail_after(60):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await anyio.sleep(0.005)
