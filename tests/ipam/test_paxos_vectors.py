"""The election against runs of the real program, message by message."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.paxos import Claims, NodeId, Paxos, ProposalId
from tests.golden import load
from tests.ipam.shapes import peer

VECTORS = load("ipam_paxos")


def proposal(item: dict[str, Any]) -> ProposalId:
    return ProposalId(item["round"], NodeId(peer(item["proposer_name"]), int(item["proposer_uid"])))


def claims_map(items: list[dict[str, Any]]) -> dict[NodeId, Claims]:
    return {
        NodeId(peer(item["node_name"]), int(item["node_uid"])): Claims(
            proposal(item["promise"]),
            proposal(item["accepted"]),
            tuple(sorted(map(peer, item["accepted_value"] or []))),
            proposal(item["accepted_value_origin"]),
        )
        for item in items
    }


def sorted_values(known: dict[NodeId, Claims]) -> dict[NodeId, Claims]:
    return {node: one._replace(value=tuple(sorted(one.value))) for node, one in known.items()}


@pytest.mark.parametrize("run", VECTORS["runs"], ids=lambda run: run["name"])
def test_run(run: dict[str, Any]) -> None:
    quorum = int(run["name"].split("quorum")[1].split("_")[0])
    nodes: dict[str, Paxos] = {}
    for step in run["steps"]:
        name = step.get("node") or step["to"]
        if name not in nodes:
            uid = next(
                int(item["node_uid"]) for item in step["state_after"] if item["node_name"] == name
            )
            nodes[name] = Paxos(NodeId(peer(name), uid), quorum)
        node = nodes[name]
        if step["op"] == "propose":
            node.propose()
        else:
            changed = node.update(claims_map(step["message"]))
            assert changed == step["update_learned_something"]
            if changed:
                assert node.think() == step["think_changed_claims_so_broadcast"]
        assert sorted_values(node.known) == claims_map(step["state_after"])
        found = node.consensus()
        wanted = step["consensus"]
        if wanted is None:
            assert found is None
        else:
            assert found is not None
            assert found[0] == proposal(wanted["origin"])
            assert sorted(found[1]) == sorted(map(peer, wanted["value"]))


@pytest.mark.parametrize("case", VECTORS["proposal_order"])
def test_order(case: dict[str, Any]) -> None:
    one, two = proposal(case["a"]), proposal(case["b"])
    assert (one < two) == case["a_precedes_b"]
    assert (two < one) == case["b_precedes_a"]
