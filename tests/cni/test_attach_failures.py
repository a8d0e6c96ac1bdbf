"""Attachment when something fails in the middle: nothing is left of it."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from base.errors import NetlinkError
from cni import requests as req
from cni import sysctl
from cni.attach import Wanted
from cni.requests import Route
from cni.rtnetlink import Answer, RouteSocket
from tests.cni.wires import Wire, addresses_in, interface, links_here, links_in
from tests.native.namespace import in_new_netns

WANTED = Wanted(
    "c1",
    (interface("10.32.0.2/12"), interface("10.33.0.2/24")),
    routes=(Route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("192.0.2.1")),),
    multicast_route=True,
)
STEPS_MAX = 40


class Fault:
    """Fails the call number ``at``, and only that."""

    def __init__(self) -> None:
        self.at = 0
        self.calls = 0

    def arm(self, at: int) -> None:
        self.at, self.calls = at, 0

    def around(self, function: Callable[..., Any], *, late: bool = False) -> Callable[..., Any]:
        """``late``: it has its effect and fails all the same."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            failing = self.calls == self.at
            result = None if failing and not late else function(*args, **kwargs)
            if failing:
                raise NetlinkError("test", "fault", f"injected at call {self.at}")
            return result

        return call


@in_new_netns
@pytest.mark.parametrize("late", [False, True])
def test_a_fault_in_any_exchange_with_the_kernel(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    fault = Fault()
    with Wire.up() as wire:
        monkeypatch.setattr(
            RouteSocket, "_exchange", fault.around(RouteSocket._exchange, late=late)
        )
        for step in range(1, STEPS_MAX):
            inner = wire.netns()
            fault.arm(step)
            try:
                wire.attacher.attach(inner, WANTED)
            except NetlinkError:
                fault.arm(0)
                assert links_in(inner) == {"lo"}, step
                assert links_here() == {"lo", "weave"}, step
            else:
                break
        assert 6 < step < STEPS_MAX - 1


@in_new_netns
def test_a_fault_in_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault()
    with Wire.up() as wire:
        monkeypatch.setattr(sysctl, "_set", fault.around(sysctl._set))
        for step in range(1, STEPS_MAX):
            inner = wire.netns()
            fault.arm(step)
            try:
                wire.attacher.attach(inner, WANTED)
            except NetlinkError:
                assert links_in(inner) == {"lo"}, step
                assert links_here() == {"lo", "weave"}, step
            else:
                break
        assert step == 10


@in_new_netns
def test_a_fault_while_adding_takes_only_that_away(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault()
    with Wire.up() as wire:
        inner = wire.container("c1", "10.32.0.2/12")
        monkeypatch.setattr(RouteSocket, "_exchange", fault.around(RouteSocket._exchange))
        for step in range(1, STEPS_MAX):
            fault.arm(step)
            try:
                wire.attacher.attach(inner, WANTED)
            except NetlinkError:
                assert addresses_in(inner) == ["10.32.0.2/12"], step
            else:
                break
        assert addresses_in(inner) == ["10.32.0.2/12", "10.33.0.2/24"]


@in_new_netns
def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Wire.up() as wire:
        inner = wire.netns()

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(wire.attacher, "_await_forwarding", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wire.attacher.attach(inner, WANTED)
        assert links_in(inner) == {"lo"}


def test_a_full_bridge_is_called_so() -> None:
    answer = Answer(req.join(7, "vethwepl0000000", 2), errno.EXFULL)
    with pytest.raises(NetlinkError, match="vethwepl0000000: the bridge has as many ports as"):
        answer.check()
