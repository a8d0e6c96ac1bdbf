"""How other processes are called: the one place that knows their command lines; none has a secret.

``-P`` keeps the working directory out of the import path: a folder called ``router`` lying there
must not become our router.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(slots=True, frozen=True)
class RouterOptions:
    """Options of the router process as text: the router checks them, and has its own defaults."""

    control_socket: Path
    bridge: str
    host: str
    port: int
    log_level: str
    log_format: str
    mtu: str | None = None
    capture: str | None = None
    loops: str | None = None
    buffer_mb: str | None = None
    adopt: bool = False


def router_argv(options: RouterOptions) -> list[str]:
    """Command line of the router."""
    values = {
        "--control-socket": str(options.control_socket),
        "--weave-bridge": options.bridge,
        "--host": options.host or None,
        "--port": str(options.port),
        "--log-level": options.log_level,
        "--log-format": options.log_format,
        "--mtu": options.mtu,
        "--capture": options.capture,
        "--loops": options.loops,
        "--bufsz": options.buffer_mb,
    }
    given = [(option, value) for option, value in values.items() if value is not None]
    # "=" so that a value beginning with "-" is not taken for another option
    argv = [sys.executable, "-P", "-m", "router", *(f"{key}={value}" for key, value in given)]
    return [*argv, "--adopt"] if options.adopt else argv


@dataclass(slots=True, frozen=True)
class ControlCommand:
    """Options of ``weft control`` as ``weft launch`` got them; control checks them."""

    peers: tuple[str, ...]
    static: Path | None
    name: str | None
    nickname: str
    resume: bool
    discovery: bool
    conn_limit: int
    password_file: Path | None
    trusted_subnets: str
    db_prefix: str
    ipalloc_range: str | None
    allow_overlap: tuple[str, ...]
    ipalloc_default_subnet: str
    ipalloc_init: str
    no_masq_local: bool
    expect_npc: bool
    docker_bridge: str
    pods_to_router: bool
    packet_filter: bool
    legacy_veth_names: bool
    adopt: bool
    status_addr: str
    metrics_addr: str
    bridge: str
    host: str
    port: int
    control_socket: Path
    http_addr: str
    log_level: str
    log_format: str


def control_argv(options: ControlCommand) -> list[str]:
    """Command line of control."""
    values = {
        "--static": options.static,
        "--name": options.name,
        "--nickname": options.nickname,
        "--conn-limit": options.conn_limit,
        "--password-file": options.password_file,
        "--trusted-subnets": options.trusted_subnets,
        "--db-prefix": options.db_prefix,
        "--ipalloc-range": options.ipalloc_range,
        "--ipalloc-default-subnet": options.ipalloc_default_subnet,
        "--ipalloc-init": options.ipalloc_init,
        "--docker-bridge": options.docker_bridge,
        "--status-addr": options.status_addr,
        "--metrics-addr": options.metrics_addr,
        "--weave-bridge": options.bridge,
        "--host": options.host,
        "--port": options.port,
        "--control-socket": options.control_socket,
        "--http-addr": options.http_addr,
        "--log-level": options.log_level,
        "--log-format": options.log_format,
    }
    switches = {
        "--resume": options.resume,
        "--no-discovery": not options.discovery,
        "--no-masq-local": options.no_masq_local,
        "--expect-npc": options.expect_npc,
        "--allow-pods-to-router": options.pods_to_router,
        "--no-packet-filter": not options.packet_filter,
        "--legacy-veth-names": options.legacy_veth_names,
        "--adopt": options.adopt,
    }
    return [
        *(sys.executable, "-P", "-m", "control.cli", "control"),
        *(f"{option}={value}" for option, value in values.items() if value is not None),
        *(f"--allow-overlap={network}" for network in options.allow_overlap),
        *(option for option, given in switches.items() if given),
        "--",
        *options.peers,
    ]


def replace_process(argv: Sequence[str]) -> NoReturn:
    """Become ``argv``, with our code on its import path."""
    ours = str(Path(__file__).resolve().parents[2])
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, *others])
    sys.stdout.flush()
    os.execv(argv[0], list(argv))
