"""The peers file: what is taken, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError
from base.names import PeerName
from control.static_peers import (
    PeerTable,
    StaticLink,
    StaticPeer,
    connection_uid,
    identify,
    parse,
    parse_address,
    read_file,
    snapshot_of,
)
from tests.control.processes import PEER_3, PEERS


def _name(number: int) -> PeerName:
    return PeerName.parse(f"ce:{number:02x}::{number:02x}")


def test_a_whole_file() -> None:
    table = parse(
        "mtu = 1410\n"
        + PEERS
        + PEER_3
        + '[[link]]\nbetween = ["host2", "host1"]\nmtu = 8950\n'
        + '[[link]]\nbetween = ["ce:3::3", "host2"]\n'
    )
    assert table.peers == (
        StaticPeer(_name(1), "host1", "10.0.0.1", 6783),
        StaticPeer(_name(2), "host2", "10.0.0.2", 6783),
        StaticPeer(_name(3), "host3", "10.0.0.3", 7000),
    )
    assert table.links == (
        StaticLink((_name(1), _name(2)), 8950),
        StaticLink((_name(2), _name(3)), 1410),
    )


def test_without_links_and_nicknames() -> None:
    table = parse('[[peer]]\nname = "ce::2"\naddress = "10.0.0.2"\n' + PEERS[:80].split("\n\n")[0])
    assert table.links is None
    assert [peer.nick for peer in table.peers] == ["ce:00:00:00:00:02", "host1"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no peer; add a [[peer]]"),
        ("# only a comment\n\n", 1, "no peer"),
        (PEERS + "[[peer]\n", 10, "not valid TOML"),
        (PEERS + 'x = "unfinished\n', 10, "not valid TOML"),
        (PEERS + "[[peer]]\nname = \n", 11, "not valid TOML"),
        ("peers = 1\n" + PEERS, 1, 'unknown key "peers"; known here: peer, link, mtu'),
        ("peer = 1\n", 1, "peer is not a list; write [[peer]]"),
        ("\n[peer]\nname = 'ce::1'\n", 2, "peer is not a list; write [[peer]]"),
        (PEERS + "[[peer]]\nname = 'ce::3'\n", 10, "[[peer]] without address; add it"),
        (PEERS + "[[peer]]\naddress = '10.0.0.3'\n", 10, "[[peer]] without name; add it"),
        (PEERS + PEER_3 + "port = 1\n", 15, 'unknown key "port"; known here: name, nickname, addr'),
        (PEERS.replace("ce:02:00:00:00:02", "host2"), 7, "invalid peer name format"),
        (PEERS.replace("ce:02:00:00:00:02", "::0"), 7, "means no peer at all"),
        (PEERS.replace('"ce:02:00:00:00:02"', "2"), 7, "name 2 is not text; put it in quotes"),
        (PEERS.replace("ce:02:00:00:00:02", "CE:1::1"), 7, "ce:01:00:00:00:01 is taken by line 2"),
        (PEERS.replace("host2", "host1"), 8, "host1 is taken by line 3; give each peer its own"),
        (PEERS.replace("host2", "two words"), 8, "blanks, brackets or control characters"),
        (PEERS.replace("host2", "ce::7"), 8, "reads as a name"),
        (PEERS.replace("10.0.0.2", "10.0.0.1:6783"), 9, "address 10.0.0.1:6783 is taken by line 4"),
        (PEERS.replace("10.0.0.2", "fe80::2"), 9, "IPv4 only; give an IPv4 address"),
        (PEERS.replace("10.0.0.2", "[fe80::2]:6783"), 9, "IPv4 only"),
        (PEERS.replace("10.0.0.2", "host2.example"), 9, "host names are not looked up"),
        (PEERS.replace("10.0.0.2", "10.0.0.256"), 9, "is not an IPv4 address"),
        (PEERS.replace("10.0.0.2", "0.0.0.0"), 9, "is no host's address"),
        (PEERS.replace("10.0.0.2", "224.0.0.1"), 9, "is no host's address"),
        (PEERS.replace("10.0.0.2", "10.0.0.2:0"), 9, "the port is no number; write one from 1"),
        (PEERS.replace("10.0.0.2", "10.0.0.2:"), 9, "the port is no number"),
        (PEERS.replace("10.0.0.2", "10.0.0.2:65536"), 9, "the port is no number"),
        (PEERS.replace("10.0.0.2", "10.0.0.2:" + "9" * 5000), 9, "the port is no number"),
        (PEERS.replace("10.0.0.2", "10.0\\n.0.2"), 9, 'address "10.0\\n.0.2" is not an IPv4'),
        ("mtu = " + "9" * 5000 + "\n" + PEERS, 1, "a number is too long"),
        ("mtu = " + "[" * 3000, 1, "nested too deeply"),
        (PEERS.replace('"10.0.0.2"', "10"), 9, "address 10 is not text"),
        ("mtu = 100\n" + PEERS, 1, "mtu 100 is not a number from 552 to 65535"),
        ("mtu = 'auto'\n" + PEERS, 1, "leave it out to measure"),
        ("mtu = true\n" + PEERS, 1, "mtu True is not a number"),
        (PEERS + "[[link]]\nbetween = ['host1']\n", 11, "a link joins two peers"),
        (PEERS + "[[link]]\nmtu = 1400\n", 10, "a link joins two peers"),
        (PEERS + "[[link]]\nbetween = ['host1', 'hots2']\n", 11, 'no peer is called "hots2"'),
        (PEERS + "[[link]]\nbetween = ['host1', 'ce::9']\n", 11, 'no peer is called "ce::9"'),
        (PEERS + "[[link]]\nbetween = ['host1', 'ce:1::1']\n", 11, "is linked to itself"),
        (PEERS + "[[link]]\nbetween = ['host1', 'host2']\nmtu = 1\n", 12, "mtu 1 is not"),
        (PEERS + "[[link]]\nbetween = ['host1', 'host2']\nspeed = 1\n", 12, 'unknown key "speed"'),
        (
            PEERS + "[[link]]\nbetween = ['host1', 'host2']\n" * 2,
            13,
            "this link stands on line 11 already",
        ),
    ],
)
def test_errors_name_the_line_and_the_remedy(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/weft/peers.toml")
    message = str(caught.value)
    assert message.startswith(f"/etc/weft/peers.toml:{line}: ")
    assert words in message
    assert "\n" not in message
    assert ";" in message, "no remedy"


def test_clashes_on_one_line_are_seen() -> None:
    one = '{name = "ce::1", address = "10.0.0.1"}'
    with pytest.raises(ConfigError, match="taken by line 1"):
        parse(f"peer = [{one}, {one}]")


@given(st.text(max_size=60))
def test_any_text_is_a_table_or_a_config_error(text: str) -> None:
    for document in (text, PEERS + text, f'[[peer]]\nname = "{text}"\naddress = "{text}"\n'):
        try:
            parse(document)
        except ConfigError as err:
            assert "\n" not in str(err)  # noqa: PT017


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_file(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_file(tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_file(binary)
    good = tmp_path / "peers.toml"
    good.write_text(PEERS)
    assert len(read_file(good).peers) == 2


def test_who_we_are() -> None:
    table = parse(PEERS)
    assert identify(table, "f", None, "host2").name == _name(2)
    assert identify(table, "f", "ce:1::1", "host2").name == _name(1)
    with pytest.raises(
        ConfigError, match=r'^--nickname: f has no peer with nickname "me"; say who'
    ):
        identify(table, "f", None, "me")
    with pytest.raises(ConfigError, match=r"^--name: f has no peer ce:09:00:00:00:09; add a"):
        identify(table, "f", "ce:9::9", "host1")
    with pytest.raises(ConfigError, match=r"^--name: invalid peer name format"):
        identify(table, "f", "host1", "host1")


def test_addresses() -> None:
    assert parse_address("192.0.2.1") == ("192.0.2.1", 6783)
    assert parse_address("192.0.2.1:1") == ("192.0.2.1", 1)


def _mesh(numbers: range, links: tuple[StaticLink, ...] | None) -> PeerTable:
    peers = tuple(StaticPeer(_name(n), f"host{n}", f"10.0.0.{n}", 6783) for n in numbers)
    return PeerTable(peers, links, 1400)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_full_mesh_equals_its_links_spelled_out(count: int) -> None:
    numbers = range(1, count + 1)
    links = tuple(StaticLink((_name(a), _name(b)), 1400) for a in numbers for b in numbers if a < b)
    short, long = _mesh(numbers, None), _mesh(numbers, links)
    for ourself in short.peers:
        assert snapshot_of(short, ourself) == snapshot_of(long, ourself)


def test_a_line_relays() -> None:
    links = tuple(StaticLink((_name(n), _name(n + 1))) for n in range(1, 4))
    table = _mesh(range(1, 5), links)
    second = snapshot_of(table, table.peers[1], seq=7)
    assert second.seq == 7
    assert [each.peer for each in second.connections] == [_name(1).octets, _name(3).octets]
    assert [each.outbound for each in second.connections] == [False, True]
    via = {each.dst: each.via for each in second.unicast}
    assert via == {_name(n).octets: _name(1 if n == 1 else 3).octets for n in (1, 3, 4)}
    flood = {each.src: each.via for each in second.broadcast}
    assert flood[_name(1).octets] == (_name(3).octets,)
    assert flood[_name(2).octets] == (_name(1).octets, _name(3).octets)
    assert flood[_name(4).octets] == (_name(1).octets,)


def test_both_ends_compute_one_uid_and_opposite_directions() -> None:
    table = _mesh(range(1, 4), None)
    views = [snapshot_of(table, peer) for peer in table.peers]
    ends = {(view.name, each.peer): each for view in views for each in view.connections}
    for (here, there), connection in ends.items():
        back = ends[there, here]
        assert connection.uid == back.uid != 0
        assert connection.outbound != back.outbound
    assert len({each.uid for each in ends.values()}) == 3
    assert connection_uid(_name(1), _name(2)) == connection_uid(_name(2), _name(1))
