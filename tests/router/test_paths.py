"""Path MTUs: the arithmetic, and what is set when the kernel's answer changes."""

from __future__ import annotations

import anyio
import pytest
from pyroute2 import IPRoute

from base.errors import ConfigError, UnderlayError
from base.ipc import Connection
from native import lib
from native.datapath import Datapath
from router import paths as paths_module
from router.path_state import PathState
from router.paths import Paths
from router.peer_table import Neighbour
from router.udp import SleeveSocket, path_mtu
from router.underlay import overlay_mtu, underlay_mtu
from tests.native.namespace import in_new_netns, set_mtu

P1, P2 = b"\xce\0\0\0\0\1", b"\xce\0\0\0\0\2"


# ---- arithmetic ----


@pytest.mark.parametrize(
    ("pmtu", "overhead", "mtu"),
    [
        (1500, 62, 1438),
        (1500, 86, 1414),
        (9000, 62, 8938),
        (9000, 86, 8914),
        (65_535, 62, 65_473),
        (68, 62, 552),
        (614, 62, 552),
        (615, 62, 553),
    ],
)
def test_the_overlay_mtu_is_what_the_path_leaves(pmtu: int, overhead: int, mtu: int) -> None:
    state = PathState(overhead)
    assert state.handle_path_mtu(pmtu)
    assert (state.mtu, state.pmtu_bytes) == (mtu, pmtu)
    assert not state.handle_path_mtu(pmtu)


def test_control_may_want_less() -> None:
    state = PathState(62, configured=1376)
    assert state.handle_path_mtu(1500)
    assert state.mtu == 1376
    assert state.handle_path_mtu(1400)
    assert state.mtu == 1338
    assert state.handle_path_mtu(9000)
    assert state.mtu == 1376


def test_a_path_is_narrowed_until_it_is_as_wide_as_it_was() -> None:
    state = PathState(62)
    narrowed = []
    for pmtu_bytes in (1500, 1400, 1450, 1500):
        state.handle_path_mtu(pmtu_bytes)
        narrowed.append(state.narrowed)
    assert narrowed == [False, True, True, False]


@pytest.mark.parametrize(
    ("pmtu", "mtu"), [(1500, 1438), (9000, 8938), (1280, 1280), (68, 1280), (70_000, 65_535)]
)
def test_the_bridges_mtu_never_falls_below_ip6s_minimum(pmtu: int, mtu: int) -> None:
    assert overlay_mtu(pmtu) == mtu


# ---- asking the kernel ----


@in_new_netns
def test_the_kernel_knows_the_path_mtu() -> None:
    set_mtu("lo", 1500)
    assert path_mtu("127.0.0.1", 6783) == 1500
    set_mtu("lo", 1400)
    assert path_mtu("127.0.0.1", 6783, "127.0.0.1") == 1400


@in_new_netns
def test_no_route_is_named() -> None:
    with pytest.raises(UnderlayError, match=r"no path to 198\.51\.100\.1: Network is unreachable"):
        path_mtu("198.51.100.1", 6783)


# ---- the shell ----


class Kernel:
    """Path MTUs by address, in place of the kernel's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mtus = {"10.0.0.1": 1500, "10.0.0.2": 9000}
        self.asked: list[str] = []
        monkeypatch.setattr(paths_module, "path_mtu", self.path_mtu)

    def path_mtu(self, addr: str, port: int, host: str = "") -> int:
        assert (port, host) == (6783, "10.0.0.9")
        self.asked.append(addr)
        if addr not in self.mtus:
            raise UnderlayError(f"no path to {addr}", 101)
        return self.mtus[addr]


class Rig:
    """Paths to two neighbours, and what was reported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = Kernel(monkeypatch)
        self.datapath = Datapath()
        self.reported: list[tuple[bytes, int, int]] = []
        self.paths = Paths(
            self.datapath, "10.0.0.9", 62, lambda *change: self.reported.append(change)
        )
        self.neighbours = {
            P1: Neighbour(1, Connection(P1, "10.0.0.1", 6783)),
            P2: Neighbour(2, Connection(P2, "10.0.0.2", 6783)),
        }
        for number, name in ((1, P1), (2, P2)):
            self.datapath.set_forwarder(number, number, name, f"10.0.0.{number}", 6783)

    def update(self, *changed: bytes) -> None:
        self.paths.update(self.neighbours, set(changed))

    def mtus(self) -> list[int]:
        return [self.datapath.forwarder_stats(number).mtu for number in (1, 2)]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_new_neighbours_are_measured(rig: Rig) -> None:
    assert rig.paths.narrowest() == 0
    rig.update(P1, P2)
    assert rig.mtus() == [1438, 8938]
    assert rig.reported == [(P1, 1438, 1500), (P2, 8938, 9000)] or rig.reported == [
        (P2, 8938, 9000),
        (P1, 1438, 1500),
    ]
    assert rig.paths.narrowest() == 1500


def test_neighbours_that_did_not_change_are_left_alone(rig: Rig) -> None:
    rig.update(P1, P2)
    rig.kernel.asked.clear()
    rig.update(P2)
    assert rig.kernel.asked == ["10.0.0.2"]


def test_a_refused_datagram_makes_us_ask_again(rig: Rig) -> None:
    rig.update(P1, P2)
    rig.reported.clear()
    rig.kernel.mtus["10.0.0.2"] = 1400
    rig.paths.refused(2)
    assert rig.mtus() == [1438, 1338]
    assert rig.reported == [(P2, 1338, 1400)]
    rig.paths.refused(2)
    rig.paths.refused(77)
    assert rig.reported == [(P2, 1338, 1400)]
    assert rig.paths.narrowest() == 1400


def test_what_control_wants_is_kept_to(rig: Rig) -> None:
    rig.neighbours[P1] = Neighbour(1, Connection(P1, "10.0.0.1", 6783, mtu=1000))
    rig.update(P1)
    assert rig.mtus()[0] == 1000
    rig.neighbours[P1] = Neighbour(1, Connection(P1, "10.0.0.1", 6783))
    rig.update(P1)
    assert rig.mtus()[0] == 1438


def test_a_neighbour_without_a_route_keeps_the_others(rig: Rig) -> None:
    del rig.kernel.mtus["10.0.0.1"]
    rig.update(P1, P2)
    assert rig.mtus() == [lib.WN_MTU_INITIAL, 8938]
    rig.kernel.mtus["10.0.0.1"] = 1500
    rig.paths.refused(1)
    assert rig.mtus() == [1438, 8938]


def test_a_neighbour_that_left_is_not_asked_for(rig: Rig) -> None:
    rig.update(P1, P2)
    del rig.neighbours[P1]
    rig.update()
    rig.kernel.asked.clear()
    rig.paths.refused(1)
    assert rig.kernel.asked == []
    assert rig.paths.narrowest() == 9000


def test_a_neighbour_whose_address_is_not_known_has_no_path(rig: Rig) -> None:
    rig.neighbours[P1] = Neighbour(1, Connection(P1, "", 6783))
    rig.update(P1, P2)
    assert rig.kernel.asked == ["10.0.0.2"]
    rig.paths.refused(1)
    assert rig.paths.narrowest() == 9000


@pytest.mark.anyio
async def test_a_narrowed_path_is_asked_for_until_it_is_wide_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths_module, "RECHECK_S", 0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.paths.run)
        rig.update(P1, P2)
        rig.kernel.asked.clear()
        await anyio.sleep(0.05)
        assert rig.kernel.asked == [], "asked without a reason"
        rig.kernel.mtus["10.0.0.1"] = 1400
        rig.paths.refused(1)
        rig.kernel.asked.clear()
        await anyio.sleep(0.05)
        assert len(rig.kernel.asked) >= 2
        assert set(rig.kernel.asked) == {"10.0.0.1"}
        rig.kernel.mtus["10.0.0.1"] = 1500
        await anyio.sleep(0.05)
        assert rig.mtus()[0] == 1438
        rig.kernel.asked.clear()
        await anyio.sleep(0.05)
        assert rig.kernel.asked == []
        tasks.cancel_scope.cancel()


# ---- the sockets' errors are a user's ----


@in_new_netns
def test_sleeve_socket_errors_name_the_option() -> None:
    first = SleeveSocket("127.0.0.1", 6783, 65536)
    with pytest.raises(ConfigError, match="--port: UDP port 6783 is in use"):
        SleeveSocket("127.0.0.1", 6783, 65536)
    with pytest.raises(ConfigError, match="--port: UDP port 6783 is in use"):
        SleeveSocket("", 6783, 65536)
    first.close()
    with pytest.raises(ConfigError, match=r"--host: 192\.0\.2\.1 is not an address of this host"):
        SleeveSocket("192.0.2.1", 6783, 65536)
    SleeveSocket("", 6783, 65536).close()


@in_new_netns
def test_before_any_neighbour_is_known_the_routes_say_what_fits() -> None:
    assert underlay_mtu("", "weave") == 1500
    with IPRoute() as netlink:
        for name, mtu, address in (("up0", 9000, "10.1.0.1"), ("up1", 1400, "10.2.0.1")):
            netlink.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"})
            index = netlink.link_lookup(ifname=name)[0]
            netlink.link("set", index=index, mtu=mtu, state="up")
            netlink.link("set", ifname=f"{name}p", state="up")
            netlink.addr("add", index=index, address=address, prefixlen=24)
    assert underlay_mtu("", "weave") == 1400
    assert underlay_mtu("", "up1") == 9000
    assert underlay_mtu("10.1.0.1", "weave") == 9000
    assert underlay_mtu("10.9.0.1", "weave") == 1500
