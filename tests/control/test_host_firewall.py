"""The packet filter against the real kernel: installed, damaged, mended, beside other people's."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv4Network

import anyio
import pytest

from base.errors import NftError
from control.host import firewall as module
from control.host import foreign, nft, ruleset
from control.host.firewall import Firewall
from control.host.owned import OwnedRanges
from control.host.ports import Port
from control.host.ruleset import Exposed, HostRules
from tests.control.netns_host import in_netns, rule_comments, sh, until
from tests.control.netns_host import ruleset as text

EXPOSED = (Exposed(IPv4Interface("10.32.0.1/12")),)
FULL = HostRules(
    exposed=(*EXPOSED, Exposed(IPv4Interface("10.2.0.1/16"), masquerade=False)),
    local_ranges=(IPv4Network("10.32.0.0/13"), IPv4Network("10.40.0.7/32")),
    docker_bridge="docker0",
    joined=True,
)
FOREIGN = """
nft add table ip other
nft add chain ip other c '{ type nat hook postrouting priority 90; }'
nft add rule ip other c counter comment '"mine"'
nft add set ip other weaver-no-masq-local '{ type ipv4_addr; }'
nft add table inet weave
nft add table bridge other
"""


@asynccontextmanager
async def watched(firewall: Firewall) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(firewall.run)
        yield
        tasks.cancel_scope.cancel()


@in_netns
async def test_every_rule_is_taken_by_the_kernel() -> None:
    for rules in (HostRules(), FULL, HostRules(strict=True, expect_npc=True, local_ranges=())):
        commands = ruleset.replace_table(rules)
        await nft.transact(commands)
        listing = await nft.list_table("ip", "weave")
        assert nft.comments(listing) == nft.wanted_comments(commands)
    await nft.transact(ruleset.replace_table(FULL))
    found = await nft.list_table("ip", "weave")
    assert nft.elements(found, ruleset.PLAIN_SET) == ["10.2.0.1"]
    assert len(nft.elements(found, ruleset.LOCAL_SET)) == 2


@in_netns
async def test_again_is_the_same() -> None:
    firewall = Firewall(FULL)
    await firewall.reconcile()
    before = text()
    await firewall.change(exposed=FULL.exposed)
    assert text() == before
    assert await firewall.reconcile() is False


DAMAGE = [
    "nft delete table ip weave",
    "nft flush table ip weave",
    "nft flush chain ip weave postrouting",
    "nft flush set ip weave weaver-no-masq-local",
    "nft insert rule ip weave forward drop",
    "nft add chain ip weave forward '{ policy drop; }'",
    "nft add element ip weave weaver-no-masq-local { 192.0.2.1 }",
    "nft flush ruleset",
    "nft delete table bridge weave",
    "nft flush set bridge weave ports",
]
PORTS = {
    "vethwepl0000001": Port("02:00:00:00:00:01", (IPv4Interface("10.1.0.1/24"),)),
    "vethwepl0000002": Port(
        "02:00:00:00:00:02", (IPv4Interface("10.2.0.1/24"), IPv4Interface("10.1.0.2/16"))
    ),
    "vethwepl0000003": Port(),
}


@in_netns
async def test_whatever_is_damaged_is_mended() -> None:
    firewall = Firewall(FULL)
    await firewall.change_ports(PORTS)
    async with watched(firewall):
        before = text()
        for number, damage in enumerate(DAMAGE, 1):
            sh(damage)
            await until(lambda wanted=number: firewall.statistics.restored == wanted, damage)  # type: ignore[misc]
            assert text() == before, damage
    assert firewall.statistics.failures == 0


@in_netns
async def test_damage_before_anybody_watched() -> None:
    firewall = Firewall(FULL)
    await firewall.reconcile()
    before = text()
    sh("nft flush chain ip weave input")
    assert await firewall.reconcile() is True
    assert text() == before


@in_netns
async def test_foreign_tables_survive() -> None:
    sh(FOREIGN)
    before = text()
    async with watched(Firewall(FULL)):
        sh("nft delete table ip weave")
        await until(lambda: "masquerade" in text(), "restored")
        await until(lambda: text().startswith(before), "foreign ones as before, ours behind")
    sh("nft delete table ip weave")
    assert text() == before


@in_netns
async def test_a_leftover_of_our_name_is_replaced() -> None:
    sh("nft add table ip weave; nft add chain ip weave old")
    sh("nft add chain ip weave forward '{ type filter hook output priority 0; policy drop; }'")
    await Firewall(HostRules()).reconcile()
    assert "old" not in text()
    assert "hook forward" in text()


@in_netns
async def test_owned_ranges_by_difference() -> None:
    rng = random.Random(7)
    firewall, ranges = Firewall(HostRules(local_ranges=())), OwnedRanges()
    await firewall.reconcile()
    start = int(IPv4Interface("10.32.0.0/12").ip)
    for _ in range(40):
        borders = sorted(rng.sample(range(1 << 8), rng.randrange(6) * 2))
        wish = [(start + a, start + b) for a, b in zip(borders[::2], borders[1::2], strict=True)]
        if (delta := ranges.change(wish)) is not None:
            await firewall.change_local_ranges(delta)
        listing = await nft.list_table("ip", "weave")
        networks = nft.networks(listing, ruleset.LOCAL_SET)
        found = {int(address) - start for network in networks for address in network}
        assert found == {each - start for a, b in wish for each in range(a, b)}
        assert await firewall.reconcile() is False
    assert firewall.statistics.failures == 0


@in_netns
async def test_isolation_comes_and_goes() -> None:
    firewall = Firewall(HostRules())
    await firewall.reconcile()
    assert await nft.list_table("bridge", "weave") is None
    await firewall.change_ports(PORTS)
    assert rule_comments("bridge", "weave") == [
        "multicast of other subnets, forward",
        "multicast of other subnets, output",
    ]
    await firewall.change_ports({"vethwepl0000001": PORTS["vethwepl0000001"]})
    assert await nft.list_table("bridge", "weave") is None
    assert await firewall.reconcile() is False


@in_netns
async def test_port_security_is_taken_by_the_kernel_and_watched() -> None:
    firewall = Firewall(HostRules(port_security=True))
    await firewall.reconcile()
    empty = sh("nft list table bridge weave")
    await firewall.change_ports({"vethwepl0000001": PORTS["vethwepl0000001"]})
    assert rule_comments("bridge", "weave") == [
        "frames of another's MAC",
        "ARP of another's MAC",
        "ARP of another's address",
        "who has no address asks for one",
        "packets of another's address",
    ]
    assert 'elements = { "vethwepl0000001" . 10.1.0.1 }' in text()
    async with watched(firewall):
        before = sh("nft list table bridge weave")
        sh("nft flush set bridge weave own-macs")
        await until(lambda: firewall.statistics.restored == 1, "restored")
        assert sh("nft list table bridge weave") == before
    await firewall.change_ports({})
    assert sh("nft list table bridge weave") == empty


@in_netns
async def test_a_refused_transaction_changes_nothing() -> None:
    await Firewall(FULL).reconcile()
    before = text()
    bad: ruleset.Command = {"add": {"rule": {"family": "ip", "table": "none", "chain": "x"}}}
    with pytest.raises(NftError):
        await nft.transact([*ruleset.replace_table(HostRules()), bad])
    assert text() == before


@in_netns
async def test_what_could_not_be_installed_is_tried_again() -> None:
    firewall = Firewall(HostRules())
    await firewall.reconcile()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        with pytest.raises(NftError):
            await firewall.change(exposed=EXPOSED)
    assert "masquerade to 10.32.0.0/12" not in rule_comments("ip", "weave")
    assert await firewall.reconcile() is False  # nobody had meddled
    assert "masquerade to 10.32.0.0/12" in rule_comments("ip", "weave")
    assert firewall.problem == ""


# ---- chains of others that drop ----


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_iptables_drops(tool: str) -> None:
    @in_netns
    async def run() -> None:
        sh(f"{tool} -P FORWARD DROP; {tool} -A FORWARD -s 192.0.2.1 -j ACCEPT")
        before = sh(f"{tool} -S")
        firewall = Firewall(FULL)
        await firewall.reconcile()
        assert len(firewall.opened) == 1
        lines = sh(f"{tool} -S FORWARD").splitlines()
        assert [line.split()[2:4] for line in lines[1:3]] == [["-o", "weave"], ["-i", "weave"]]
        assert "what the host's policy drops" in rule_comments("ip", "weave")
        await firewall.reconcile()
        assert sh(f"{tool} -S FORWARD").splitlines() == lines
        sh(f"{tool} -F FORWARD")
        await firewall.reconcile()
        assert len(sh(f"{tool} -S FORWARD").splitlines()) == 3
        await foreign.close_chains("weave")
        sh(f"{tool} -A FORWARD -s 192.0.2.1 -j ACCEPT")
        assert sh(f"{tool} -S") == before
        # the policy goes, and so does what it made necessary
        await firewall.reconcile()
        sh(f"{tool} -P FORWARD ACCEPT")
        await firewall.reconcile()
        assert "weave" not in sh(f"{tool} -S")
        assert "what the host's policy drops" not in rule_comments("ip", "weave")

    run()


@in_netns
async def test_chains_of_nft_that_drop() -> None:
    sh(
        "nft add table inet strict;"
        "nft add chain inet strict f '{ type filter hook forward priority 0; policy drop; }';"
        "nft add rule inet strict f ip saddr 192.0.2.1 accept;"
        "nft add table inet firewalld;"
        "nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }';"
        "nft add rule inet firewalld filter_FORWARD reject"
    )
    before = text()
    firewall = Firewall(HostRules())
    async with watched(firewall):
        assert firewall.opened == ["inet firewalld filter_FORWARD", "inet strict f"]
        assert rule_comments("inet", "strict") == ["weft weave out", "weft weave in", ""]
        assert rule_comments("inet", "firewalld") == ["weft weave out", "weft weave in", ""]
    await foreign.close_chains("weave")
    sh("nft delete table ip weave")
    assert text() == before


@in_netns
async def test_a_policy_that_changes_is_noticed() -> None:
    sh("iptables-nft -P FORWARD ACCEPT")
    firewall = Firewall(HostRules())
    async with watched(firewall):
        assert firewall.opened == []
        sh("iptables-nft -P FORWARD DROP")
        await until(lambda: firewall.opened == ["ip filter FORWARD"], "opened")
        assert "-i weave" in sh("iptables-nft -S FORWARD")


@in_netns
async def test_only_chains_of_one_kind_when_told_so() -> None:
    sh("iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP")
    before = sh("iptables-nft -S; iptables-legacy -S")
    for backend, tool in (("nft", "iptables-nft"), ("legacy", "iptables-legacy")):
        firewall = Firewall(HostRules(), foreign.Backend(backend))
        await firewall.reconcile()
        assert len(firewall.opened) == 1
        assert "weave" in sh(f"{tool} -S")
        await foreign.close_chains("weave")
        assert sh("iptables-nft -S; iptables-legacy -S") == before


@in_netns
async def test_nothing_at_all_when_told_so() -> None:
    sh("iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP; nft add table ip other")
    before = sh("nft list ruleset; iptables-legacy -S")
    await Firewall(FULL).reconcile()  # of a process before
    firewall = Firewall(HostRules(), foreign.Backend.NONE)
    async with watched(firewall):
        assert sh("nft list ruleset; iptables-legacy -S") == before
        await firewall.change(exposed=EXPOSED)
        await firewall.change_ports(PORTS)
        if (delta := OwnedRanges().change([(0, 256)])) is not None:
            await firewall.change_local_ranges(delta)
        assert await firewall.reconcile() is False
        assert sh("nft list ruleset; iptables-legacy -S") == before
    assert firewall.problem == ""


@in_netns
async def test_a_quarrel_is_not_carried_on_at_full_speed() -> None:
    pause_s = 0.7
    firewall = Firewall(HostRules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_RETRY_S", pause_s)
        await quarrel(firewall, pause_s)


async def quarrel(firewall: Firewall, pause_s: float) -> None:
    async with watched(firewall):
        for number in range(1, 21):
            sh("nft delete table ip weave")
            await until(lambda wanted=number: firewall.statistics.restored == wanted, "restored")  # type: ignore[misc]
        sh("nft delete table ip weave")
        before = anyio.current_time()
        await until(lambda: firewall.statistics.restored == 21, "restored all the same")
        assert anyio.current_time() - before > pause_s


@in_netns
async def test_without_the_tool() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        firewall = Firewall(HostRules())
        async with watched(firewall):
            assert "nft: not found; install nft" in firewall.problem
    await firewall.reconcile()
    assert firewall.problem == ""
