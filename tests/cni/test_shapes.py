"""Configurations, results, environments and frames, without a node: every rule once, any bytes."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import CniError, RemoteProtocolError
from cni.codes import Code, error_object
from cni.config import (
    parse_base,
    parse_weave_ipam,
    parse_weave_net,
    requested_ips,
    timeout_of,
    valid_attachments,
)
from cni.environment import parse_environment
from cni.fields import Network
from cni.hostlocal.config import parse_resolver
from cni.hostlocal.ranges import parse_set
from cni.result import Ip, Link, Result, Route, decode, encode, merge
from cni.versions import SUPPORTED, require, version_answer
from control.cni.wire import (
    Answer,
    Request,
    decode_request,
    encode_answer,
    encode_request,
    request_length,
)
from tests.control.cni.shapes import check_result

FULL = Result(
    links=(Link("weave", "02:00:00:00:00:01"), Link("eth0", "02:00:00:00:00:02", "/ns", 1376)),
    ips=(
        Ip(ipaddress.ip_interface("10.32.0.2/12"), ipaddress.ip_address("10.32.0.1"), 1),
        Ip(ipaddress.ip_interface("fd00::2/64"), None, 1),
    ),
    routes=(
        Route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("10.32.0.1")),
        Route(ipaddress.ip_network("fd01::/64"), None, {"mtu": 1280}),
    ),
    dns={"nameservers": ["10.32.0.10"]},
)


def config(**keys: Any) -> bytes:
    return json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "weave-net", **keys}).encode()


def code_of(error: pytest.ExceptionInfo[CniError]) -> int:
    return error.value.code


def allowed(error: CniError, *codes: int) -> None:
    assert error.code in codes


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", SUPPORTED)
def test_result_of_every_version(version: str) -> None:
    shape = encode(FULL, version)
    check_result(shape, version)
    again = encode(decode(json.loads(json.dumps(shape)), "0.1.0"), version)
    assert again == shape


def test_newest_result_loses_nothing() -> None:
    assert decode(encode(FULL, "1.1.0"), "0.1.0") == FULL


def test_old_result_has_one_address_of_a_family() -> None:
    two = Result(ips=(*FULL.ips, Ip(ipaddress.ip_interface("10.40.0.2/16"))), routes=FULL.routes)
    shape = encode(two, "0.2.0")
    assert shape["ip4"]["ip"] == "10.32.0.2/12"
    assert shape["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}]
    assert shape["ip6"]["routes"] == [{"dst": "fd01::/64"}]


@pytest.mark.parametrize(
    "shape",
    [
        {"cniVersion": "9.9.9"},
        {"ips": {}},
        {"ips": [{"address": "10.0.0.1"}]},
        {"ips": [{"address": "10.0.0.1/8", "interface": -1}]},
        {"ips": [{"address": "10.0.0.1/8", "interface": 1}], "interfaces": [{"name": "a"}]},
        {"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]},
        {"interfaces": [{"name": 5}]},
        {"dns": []},
    ],
)
def test_results_that_are_none(shape: dict[str, Any]) -> None:
    with pytest.raises(CniError) as error:
        decode(shape, "1.0.0")
    assert code_of(error) in (1, 7)


def test_merge_keeps_what_was_and_renumbers() -> None:
    before = Result(
        links=(Link("lo", "", "/ns"), Link("eth0", "old", "/ns")),
        ips=(Ip(ipaddress.ip_interface("127.0.0.1/8"), None, 0),),
        dns={"domain": "a"},
    )
    merged = merge(before, FULL)
    assert [link.name for link in merged.links] == ["lo", "eth0", "weave"]
    assert merged.links[1].mac == "02:00:00:00:00:02"
    assert [ip.link for ip in merged.ips] == [0, 1, 1]
    assert merged.dns == {"domain": "a", "nameservers": ["10.32.0.10"]}
    assert merge(merged, FULL) == merged


# --- configurations -------------------------------------------------------------------------------


def test_routes_absent_and_empty_differ() -> None:
    assert parse_weave_ipam(parse_base(config(ipam={})), {}).routes is None
    assert parse_weave_ipam(parse_base(config(ipam={"routes": None})), {}).routes is None
    assert parse_weave_ipam(parse_base(config(ipam={"routes": []})), {}).routes == ()


def test_requested_addresses_in_order_and_once() -> None:
    raw = {
        "args": {"cni": {"ips": ["10.0.0.2"]}},
        "runtimeConfig": {"ips": ["10.0.0.3/24", "10.0.0.1"]},
    }
    found = [str(one) for one in requested_ips(raw, {"IP": "10.0.0.1,10.0.0.9"})]
    assert found == ["10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.3/24"]
    with pytest.raises(CniError) as error:
        requested_ips({}, {"IP": "x"})
    assert code_of(error) == 4


@pytest.mark.parametrize("value", [0, -1, 3601, "5", True, [], float("nan")])
def test_timeouts_that_are_none(value: Any) -> None:
    with pytest.raises(CniError):
        timeout_of({"timeout": value})


@pytest.mark.parametrize(
    "keys",
    [
        {"bridge": "a-bridge-too-long"},
        {"mtu": -1},
        {"mtu": 1.5},
        {"hairpinMode": "yes"},
        {"runtimeConfig": {"mac": "nonsense"}},
        {"runtimeConfig": []},
        {"prevResult": []},
        {"dns": "x"},
    ],
)
def test_weave_net_keys_that_are_wrong(keys: dict[str, Any]) -> None:
    with pytest.raises(CniError) as error:
        parse_weave_net(parse_base(config(**keys)))
    assert code_of(error) == 7


def test_ranges_of_the_runtime_need_host_local() -> None:
    keys: dict[str, Any] = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.0.0.0/24"}]]}}
    with pytest.raises(CniError) as error:
        parse_weave_net(parse_base(config(**keys)))
    assert code_of(error) == 2
    parse_weave_net(parse_base(config(ipam={"type": "host-local"}, **keys)))


@pytest.mark.parametrize("entry", [5, {}, {"containerID": "a"}, {"containerID": "", "ifname": "b"}])
def test_valid_attachments_that_are_none(entry: Any) -> None:
    with pytest.raises(CniError) as error:
        valid_attachments(parse_base(config(**{"cni.dev/valid-attachments": [entry]})))
    assert code_of(error) == 7


def test_commands_and_versions() -> None:
    for command, since in (("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")):
        for version in SUPPORTED:
            if SUPPORTED.index(version) < SUPPORTED.index(since):
                with pytest.raises(CniError) as error:
                    require(command, version)
                assert code_of(error) == 1
            else:
                require(command, version)
    assert version_answer(5)["cniVersion"] == "1.1.0"


def test_error_object() -> None:
    assert error_object(CniError(Code.TRY_AGAIN, "m"), "0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "m",
    }


# --- any bytes ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["ipam", "mtu", "bridge", "runtimeConfig", "args", "dns", "prevResult", "timeout", "cniVersion"]
)


@given(st.binary(max_size=300))
def test_any_bytes_as_configuration(text: bytes) -> None:
    try:
        parse_base(text)
    except CniError as err:
        allowed(err, 1, 6, 7)


@given(st.dictionaries(KEYS, JSON))
def test_any_values_as_configuration(keys: dict[str, Any]) -> None:
    try:
        base = parse_base(config(**keys))
        parse_weave_net(base)
        parse_weave_ipam(base, {})
    except CniError as err:
        allowed(err, 1, 2, 6, 7)


@given(
    st.dictionaries(
        st.sampled_from(["interfaces", "ips", "routes", "dns", "ip4", "cniVersion"]), JSON
    ),
    st.sampled_from(SUPPORTED),
)
def test_any_values_as_result(shape: dict[str, Any], version: str) -> None:
    try:
        found = decode(shape, version)
    except CniError as err:
        allowed(err, 1, 7)
    else:
        for each in SUPPORTED:
            json.dumps(encode(found, each))


@given(st.dictionaries(st.sampled_from(["CNI_COMMAND", "CNI_IFNAME", "CNI_ARGS"]), st.text()))
def test_any_environment(variables: dict[str, str]) -> None:
    try:
        parse_environment({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", **variables})
    except CniError as err:
        allowed(err, 4)


@given(st.binary(max_size=200))
def test_any_bytes_as_request(body: bytes) -> None:
    try:
        request = decode_request(body)
    except RemoteProtocolError:
        return
    assert decode_request(encode_request(request)) == request


@given(st.binary(min_size=4, max_size=4))
def test_any_length(header: bytes) -> None:
    try:
        assert 3 <= request_length(header) < 2 << 20
    except RemoteProtocolError:
        pass


def test_request_and_answer() -> None:
    request = Request("weave-net", {"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b"}, b"{}")
    assert decode_request(encode_request(request)) == request
    assert encode_answer(Answer(1, b"out", b"e")) == b"\0\0\0\x09\x01\0\0\0\x01eout"


# --- host-local -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=6, unique=True).map(sorted),
    st.integers(0, 15),
)
def test_candidates_are_each_address_once_but_gateways(edges: list[int], last: int) -> None:
    found = []
    for number, (low, high) in enumerate(zip(edges[::2], edges[1::2], strict=False)):
        subnet = f"10.0.{number}.0/28"
        found.append(
            {
                "subnet": subnet,
                "rangeStart": f"10.0.{number}.{low + 1}",
                "rangeEnd": f"10.0.{number}.{high + 1}",
            }
        )
    one = parse_set(0, found)
    everything = [address for address, _ in one.candidates(None)]
    start = ipaddress.ip_address(f"10.0.0.{last}")
    turned = [address for address, _ in one.candidates(start)]
    assert len(everything) == len(set(everything)) == one.size()
    assert sorted(turned, key=int) == sorted(everything, key=int)
    assert not any(one.is_gateway(address) for address in everything)
    if one.range_of(start) is not None and start in everything:
        assert turned[-1] == start


def test_range_defaults_of_ipv6() -> None:
    (one,) = parse_set(0, [{"subnet": "fd00::/126"}]).ranges
    assert (str(one.gateway), str(one.start), str(one.end)) == ("fd00::1", "fd00::1", "fd00::3")
    network: Network = one.subnet
    assert network.prefixlen == 126


@given(st.text(max_size=200))
def test_any_resolver_file(text: str) -> None:
    json.dumps(parse_resolver(text))
