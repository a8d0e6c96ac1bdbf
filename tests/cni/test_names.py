"""Names of interfaces: what is taken, what is told apart, what comes back from an alias."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from cni.names import Alias, check_container_id, check_ifname, host_ifname

IDS = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,199}", fullmatch=True)
IFNAMES = st.from_regex(r"[a-z0-9][a-z0-9._\-]{0,14}", fullmatch=True)


@pytest.mark.parametrize("text", ["a", "0", "pod-1_x.y", "c" * 200])
def test_container_ids(text: str) -> None:
    assert check_container_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "c" * 201, "-a", ".a", "_", "a/b", "a b", "ä", "a\n", "контейнер", "a:b", "\u0661"]
)
def test_no_container_ids(text: str) -> None:
    with pytest.raises(ConfigError, match="container id"):
        check_container_id(text)


@pytest.mark.parametrize("text", ["e", "eth0", "eth0.100", "a" * 15, "ü"])
def test_interface_names(text: str) -> None:
    assert check_ifname(text) == text


@pytest.mark.parametrize(
    "text", ["", "a" * 16, ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d", "\x7f", "ü" * 8]
)
def test_no_interface_names(text: str) -> None:
    with pytest.raises(ConfigError, match="interface name"):
        check_ifname(text)


def test_the_hosts_end_is_called_by_container_and_interface() -> None:
    digest = hashlib.sha256(b"0123456789ab/eth0").hexdigest()
    assert host_ifname("0123456789ab", "eth0") == "vethwepl" + digest[:7]
    assert host_ifname("0123456789ab", "eth0", legacy=True) == "vethwepl0123456"
    assert host_ifname("0123456789ab", "eth0") != host_ifname("0123456789ab", "net1")
    assert host_ifname("0123456789ab", "eth0") != host_ifname("0123456789ac", "eth0")
    assert host_ifname("a", "b", legacy=True) == "vethwepla"


@given(IDS, IFNAMES, st.booleans())
def test_the_name_fits(container: str, ifname: str, legacy: bool) -> None:
    name = host_ifname(container, ifname, legacy=legacy)
    assert name.startswith("vethwepl")
    assert 8 < len(name) <= 15


@given(IDS, IFNAMES, st.text(max_size=300))
def test_the_alias_tells_what_it_was_told(container: str, ifname: str, label: str) -> None:
    text = str(Alias(container, ifname, label))
    assert len(text.encode()) <= 254
    found = Alias.parse(text)
    assert found is not None
    assert found.names(container, ifname)


@pytest.mark.parametrize("text", [None, "", "word", "a/b eth0", "id eth/0", " eth0", "id  pod"])
def test_other_aliases_are_not_ours(text: str | None) -> None:
    assert Alias.parse(text) is None
