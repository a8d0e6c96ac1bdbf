"""The session with a real Weave Net 2.8.1 in the vectors, replayed at two nodes of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.control.meshed import members
from tests.control.views import samples

#: Whole processes, on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: Of routers and names, or of what the original was told outside of IPAM.
_OTHERS = ("/name", "/dns", "/domain", "/expose", "/connect", "/forget", "/nothing", "/proxyaddrs")
_PAGES = ("/status", "/report", "/metrics")
#: A peer that is reachable is left alone unless one insists.
_LIVE = "/peer/ce:02:00:00:00:02"


def _rows() -> list[dict[str, Any]]:
    return [
        each
        for each in samples()
        if not each["path"].startswith(_OTHERS)
        and (not each["path"].startswith(_PAGES) or each["path"] == "/status/ipam")
    ]


def test_every_answer_is_that_of_the_original(tmp_path: Path) -> None:
    seeds = "ce:01:00:00:00:01,ce:02:00:00:00:02"
    ipam = ("--ipalloc-range", "10.32.0.0/16", "--ipalloc-init", f"seed={seeds}")
    different = []
    rows = _rows()
    assert len(rows) >= 40
    with members(tmp_path, 2, *ipam) as (one, two):
        assert one.text("POST", "/ip/c1") == "10.32.0.1/16"
        assert two.text("POST", "/ip/c2") == "10.32.128.0/16"
        for number, each in enumerate(rows):
            node = {"host1": one, "host2": two}[each["host"]]
            path = each["path"]
            if path == _LIVE:
                refused = node.ask(each["method"], path)
                assert refused.status_code == 400
                assert refused.text.startswith("peer ce:02:00:00:00:02 is reachable")
                path += "?force=true"
            elif path == "/status/ipam" and any(row["path"] == _LIVE for row in rows[:number]):
                continue  # what host2 makes of the theft is for tests of the allocator
            answer = node.ask(each["method"], path, content=each["form_body"], headers=FORM)
            # a status page says with its code that there is no router
            code = each["status"] if path.startswith("/status") else answer.status_code
            ours = (code, answer.text, answer.headers.get("content-type"))
            theirs = (each["status"], each["body"], each["content_type"])
            if ours != theirs:
                different.append(f"{each['host']} {each['method']} {path}: {ours} {theirs}")
    assert not different, "\n".join(different)
