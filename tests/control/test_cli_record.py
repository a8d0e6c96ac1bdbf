"""Options as records: what typer makes of the fields, and the way back to a command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import pytest
import typer

from control.cli.commands import control_argv, router_argv
from control.cli.node_options import ControlOptions, LaunchOptions, RouterOptions
from control.cli.options import PANELS
from control.cli.record import arguments, takes
from tests.control.processes import weft

R = TypeVar("R")


def _parsed(record: type[R], argv: list[str]) -> R:
    """The record that a command of it is called with."""
    seen: list[R] = []
    app = typer.Typer()
    app.command()(takes(record, PANELS)(seen.append))
    typer.main.get_command(app).main(argv, standalone_mode=False)
    return seen[0]


#: Every option with a value of its own.
GIVEN = LaunchOptions(
    bridge="br",
    host="10.0.0.1",
    port=7000,
    adopt=True,
    control_socket=Path("/r"),
    log_level="debug",
    log_format="json",
    mtu="1400",
    capture="packet",
    loops="one",
    bufsz="9",
    pkt_debug=True,
    peers=["-a", "b:1"],
    static=Path("/p"),
    name="-n",
    nickname="nick name",
    resume=True,
    no_discovery=True,
    conn_limit=3,
    password_file=Path("/pw"),
    password="secret",
    trusted_subnets="10.0.0.0/8",
    db_prefix="/db",
    ipalloc_range="",
    allow_overlap=["10.0.0.0/8", "10.1.0.0/16"],
    ipalloc_default_subnet="10.2.0.0/16",
    ipalloc_init="observer",
    no_masq_local=True,
    expect_npc=True,
    docker_bridge="docker0",
    allow_pods_to_router=True,
    no_packet_filter=True,
    port_security=True,
    legacy_veth_names=True,
    proc_path="/hp",
    host_root="/h",
    adopt_db="/w",
    http_addr="",
    status_addr="127.0.0.1:1",
    metrics_addr="127.0.0.1:2",
    min_protocol_version=2,
    print_peer_name=True,
    version=True,
)
PLAIN = LaunchOptions(nickname="n", log_level="info")


def test_every_option_is_given() -> None:
    for field in dataclasses.fields(LaunchOptions):
        assert getattr(GIVEN, field.name) != getattr(PLAIN, field.name), field.name


@pytest.mark.parametrize("options", [GIVEN, PLAIN], ids=["given", "defaults"])
def test_what_launch_was_told_reaches_control_and_router(options: LaunchOptions) -> None:
    told = _parsed(ControlOptions, control_argv(options)[5:])
    for field in dataclasses.fields(ControlOptions):
        assert getattr(told, field.name) == getattr(options, field.name), field.name
    router = _parsed(RouterOptions, router_argv(options)[4:])
    for field in dataclasses.fields(RouterOptions):
        assert getattr(router, field.name) == getattr(options, field.name), field.name
    assert "secret" not in " ".join(control_argv(options) + router_argv(options))


@dataclass(frozen=True, kw_only=True)
class Small:
    words: Annotated[list[str] | None, typer.Argument()] = None
    size: Annotated[int | None, typer.Option("--size")] = None
    fast: Annotated[bool, typer.Option("--fast")] = False
    tags: Annotated[list[str] | None, typer.Option("--tag")] = None


def test_the_shape_of_a_command_line() -> None:
    assert arguments(Small(), Small) == []
    assert arguments(Small(words=["-x"], size=-5, fast=True, tags=["a", "b"]), Small) == [
        *("--size=-5", "--fast", "--tag=a", "--tag=b", "--", "-x"),
    ]


def test_help_shows_the_panels_in_order() -> None:
    text = weft("launch", "--help").stdout
    places = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
