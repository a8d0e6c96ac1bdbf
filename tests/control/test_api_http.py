"""The API over real sockets: every answer of the vectors that is a router's, forms, guards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.forms import FormError, parse_peers
from control.api.guard import BODY_LEN_MAX, is_local_host, refusal, tcp_refusal
from tests.control.served import Served
from tests.control.views import member, node, sample, samples

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    api = Served(tmp_path)
    with api.running():
        yield api


#: Of other parts of a node, or compared in full elsewhere.
_NOT_HERE = ("/ip", "/ring", "/name", "/dns", "/domain", "/expose", "/peer", "/status/dns")
_ELSEWHERE = ("/status", "/status/ipam", "/status/targets", "/metrics")
_ROWS = [
    each
    for each in samples()
    if not each["path"].startswith(_NOT_HERE)
    and (each["path"] not in _ELSEWHERE or each["method"] != "GET")
    and "IPAM" not in each["path"]
    and each["request_headers"] == []
    and each["form_body"] != "peer=:bad:"  # its words are those of Go's resolver
]


def _id(each: dict[str, Any]) -> str:
    return f"{each['method']} {each['path']} {each['form_body'] or ''}"


@pytest.mark.parametrize("each", _ROWS, ids=_id)
def test_answers_of_the_vectors(served: Served, each: dict[str, Any]) -> None:
    with served.client() as client:
        answer = client.request(
            each["method"], each["path"], content=each["form_body"], headers=FORM
        )
    assert answer.status_code == each["status"]
    assert answer.text == each["body"]
    assert answer.headers.get("content-type") == each["content_type"]


def test_the_vectors_are_not_filtered_away() -> None:
    assert len(_ROWS) >= 12


def test_report_is_json_in_the_original_form(served: Served) -> None:
    theirs = sample("/report", accept="application/json")
    with served.client() as client:
        answer = client.get("/report", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == theirs["content_type"]
    assert answer.text.startswith('{\n    "Ready": true,\n    "Version": "2.8.1",\n')
    several = [("Accept", "text/html"), ("Accept", "application/json")]
    with served.client() as client:
        client.headers.clear()
        assert client.get("/report", headers=several).headers["content-type"] == "application/json"


@pytest.mark.parametrize("query", ["", "?format=a&format=b", "?other=x"])
def test_report_wants_one_format(served: Served, query: str) -> None:
    with served.client() as client:
        answer = client.get(f"/report{query}")
        assert (answer.status_code, answer.text) == (
            400,
            "error: must supply one format parameter\n",
        )
        assert client.get("/report?format=").status_code == 200


@pytest.mark.parametrize(
    ("path", "key"), [("connections", "Connections"), ("peers", "Peers"), ("targets", "Targets")]
)
def test_pages_as_json_are_parts_of_the_report(served: Served, path: str, key: str) -> None:
    headers = {"Accept": "application/json"}
    with served.client() as client:
        report = client.get("/report", headers=headers).json()
        page = client.get(f"/status/{path}", headers=headers)
    assert page.headers["content-type"] == "application/json"
    assert page.json() == report["Router"][key]


def test_status_until_ready(served: Served) -> None:
    with served.client() as client:
        ready = client.get("/status/targets")
        served.view = node(up=False)
        for path in ("/status", "/status/connections", "/status/peers", "/status/targets"):
            answer = client.get(path)
            assert answer.status_code == 503
            as_json = client.get(path, headers={"Accept": "application/json"})
            assert as_json.status_code == 503
            as_json.json()
        assert client.get("/status/targets").text == ready.text
        assert client.get("/metrics").status_code == 200
        assert client.get("/report", headers={"Accept": "application/json"}).status_code == 200


# Changes ----------------------------------------------------------------------------------------


def test_connect_and_forget(served: Served) -> None:
    with served.client() as client:
        client.post("/connect", data={"peer": ["b", "a:1", "b"]}).raise_for_status()
        client.post("/connect?peer=c", data={"replace": "true"}).raise_for_status()
        client.post("/connect", data={"peer": "d", "replace": "yes"}).raise_for_status()
        client.post("/forget", data={"peer": ["a:1", "b"]}).raise_for_status()
    assert served.orders.connected == [(["b", "a:1"], False), (["c"], True), (["d"], False)]
    assert served.orders.forgotten == [["a:1", "b"]]


def test_refused_peers_are_named_and_the_others_taken(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/connect", data={"peer": ["bad1", "ok", "bad2"]})
    assert answer.status_code == 400
    assert answer.text == 'peer "bad1": no address\\x1b\npeer "bad2": no address\\x1b\n'
    assert served.orders.connected == [(["bad1", "ok", "bad2"], False)]


def test_what_is_no_peer_is_named_as_the_original_does(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/connect", data={"peer": ["a", ""]})
    assert (answer.status_code, answer.text) == (
        400,
        'invalid peer name "", should be host[:port]\n',
    )
    assert not served.orders.connected


def test_what_cannot_be_remembered(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/forget", data={"peer": "disk-full"})
    assert (answer.status_code, answer.text) == (400, "--db-prefix: the disk is full\n")


def test_fixed_peers_cannot_be_changed(tmp_path: Path) -> None:
    api = Served(tmp_path, fixed=True)
    with api.running(), api.client() as client:
        for path in ("/connect", "/forget"):
            answer = client.post(path, data={"peer": "a"})
            assert answer.status_code == 400
            assert answer.text.startswith("peers are fixed by the peers file (--static); ")
            assert answer.text.count("\n") == 1


@pytest.mark.parametrize("path", ["/connect", "/forget"])
@pytest.mark.parametrize("length", [BODY_LEN_MAX + 1, 10 * BODY_LEN_MAX])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_bounded(served: Served, path: str, length: int, chunked: bool) -> None:
    body = b"peer=" + b"x" * (length - 5)

    def pieces() -> Iterator[bytes]:
        for start in range(0, length, 4096):
            yield body[start : start + 4096]

    with served.client() as client:
        try:
            answer = client.post(path, content=pieces() if chunked else body, headers=FORM)
        except httpx.WriteError:
            return  # cut off while it was still talking: as good
    assert answer.status_code == 413
    assert answer.text == f"the request is larger than {BODY_LEN_MAX} bytes\n"
    assert not served.orders.connected
    assert not served.orders.forgotten


def test_methods(served: Served) -> None:
    with served.client() as client:
        for method, path in (
            *(("GET", "/connect"), ("POST", "/status"), ("DELETE", "/metrics")),
            *(("HEAD", "/status"), ("HEAD", "/report"), ("OPTIONS", "/status/peers")),
        ):
            answer = client.request(method, path)
            assert (answer.status_code, answer.text) == (405, "")


def test_other_paths(served: Served) -> None:
    with served.client() as client:
        for path in ("/", "/status/", "/status/nothing", "/report/", "/metrics/"):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (404, "404 page not found\n")


def test_untidy_paths_lead_to_the_tidy_one(served: Served) -> None:
    link = '<a href="/status/ipam?a=1&amp;b">Moved Permanently</a>.\n\n'
    asked = b" //status/./x/../ipam?a=1&b HTTP/1.0\r\n\r\n"
    for method, body, is_page in (("GET", link, True), ("HEAD", "", True), ("POST", "", False)):
        head, _, said = served.raw(method.encode() + asked).decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 301 ")
        assert "\r\nlocation: /status/ipam?a=1&b\r\n" in f"{head.lower()}\r\n"
        assert ("content-type: text/html; charset=utf-8" in head.lower()) == is_page
        assert said == body


# Who may ask ------------------------------------------------------------------------------------


def test_host_header_over_tcp(served: Served) -> None:
    with served.client(tcp=True) as client:
        assert client.get("/status").status_code == 200
        assert client.get("/status", headers={"Host": "localhost"}).status_code == 200
        for path in ("/status", "/report", "/metrics", "/nothing"):
            answer = client.get(path, headers={"Host": "rebound.example:6784"})
            assert answer.status_code == 403
            assert "rebound.example" in answer.text
        page = client.post("/connect", data={"peer": "a"}, headers={"Origin": "http://x.example"})
        assert page.status_code == 403
    assert b" 200 " in served.raw(b"GET /status HTTP/1.0\r\n\r\n", tcp=True)
    assert b" 403 " in served.raw(b"POST /connect?peer=a HTTP/1.0\r\n\r\n", tcp=True)
    assert served.orders.connected == []


def test_host_header_over_unix_does_not_matter(served: Served) -> None:
    with served.client() as client:
        assert client.get("/status", headers={"Host": "rebound.example"}).status_code == 200
    assert b" 200 " in served.raw(b"GET /status HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:6784", "localhost", "LOCALHOST:1", "[::1]", "[::1]:6784"]
)
def test_local_hosts(host: str) -> None:
    assert is_local_host(host)
    assert tcp_refusal("POST", {"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "localhost:x"),
        *("a@127.0.0.1", "[evil]:1", "]", "[]:1", "127.0.0.1:80:80", "0x7f.1", "127.1"),
    ],
)
def test_other_hosts(host: str) -> None:
    assert not is_local_host(host)
    assert "neither an IP address nor localhost" in (tcp_refusal("GET", {"host": host}) or "")


def test_no_host_at_all() -> None:
    """Such as health checks say: ``GET /status HTTP/1.0``."""
    assert tcp_refusal("GET", {}) is None
    assert tcp_refusal("GET", {"host": ""}) is not None
    assert tcp_refusal("POST", {}) is not None


@pytest.mark.parametrize(
    ("method", "server", "refused"),
    [
        ("GET", ("10.0.0.1", 6782), False),
        ("POST", ("10.0.0.1", 6782), True),
        ("GET", ("127.0.0.1", 6782), True),
        ("GET", ("::1", 6782), True),
        ("GET", None, True),
    ],
)
def test_monitoring_may_name_the_host(
    method: str, server: tuple[str, int] | None, refused: bool
) -> None:
    scope = {"method": method, "headers": [(b"host", b"node1:6782")], "server": server}
    assert (refusal(scope) is not None) == refused


@given(st.text())
def test_any_host_header(host: str) -> None:
    is_local_host(host)
    reason = tcp_refusal("GET", {"host": host})
    assert reason is None or reason.isprintable()


# Forms ------------------------------------------------------------------------------------------


def test_forms() -> None:
    form = parse_peers(b"peer=b&peer=%61&replace=true&peer=b", "peer=c&replace=false")
    assert (form.peers, form.replace) == (["b", "a", "c"], True)
    assert parse_peers(b"").peers == []


@pytest.mark.parametrize(
    "body",
    [b"peer=", b"peer", b"peer=%00", b"peer=a%0Ab", b"peer=\xff", b"peers=a", b"peer=a&" * 1001],
)
def test_bad_forms(body: bytes) -> None:
    with pytest.raises(FormError) as caught:
        parse_peers(body)
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200) | st.text(alphabet="per=&%0aA+;é", max_size=40).map(str.encode))
def test_any_form(body: bytes) -> None:
    try:
        form = parse_peers(body, body.decode("latin-1"))
    except FormError:
        return
    assert all(peer and peer.isprintable() for peer in form.peers)


def test_any_request(served: Served) -> None:
    """No bytes make a traceback or end the server."""

    @given(
        st.sampled_from(["GET", "POST", "PUT", "X"]),
        st.sampled_from(["/status", "/report", "/connect", "/forget", "/metrics", "/x"]),
        st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
        st.binary(max_size=60),
    )
    def ask(method: str, path: str, query: str, body: bytes) -> None:
        head = f"{method} {path}?format={query} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = served.raw(head.encode() + body)
        assert b" 500 " not in answer[:20] or b"error during template" in answer
        assert b"Traceback" not in answer

    ask()
    with served.client() as client:
        assert client.get("/status").status_code == 200


def test_a_hostile_nickname_stays_text(served: Served) -> None:
    served.view = node(member(targets=("a\x1b[31m\nb",)))
    with served.client() as client:
        assert client.get("/status/targets").text == "a\\x1b[31m\\x0ab\n"
        template = {"format": "{{range .Router.Targets}}{{.}}{{end}}"}
        assert client.get("/report", params=template).text == "a\\x1b[31m\\x0ab"
        answer = client.get("/status/targets", headers={"Accept": "application/json"})
        assert json.loads(answer.text) == ["a\x1b[31m\nb"]
