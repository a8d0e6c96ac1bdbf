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
    """Options of the router process, as text: the router checks them itself."""

    control_socket: Path
    bridge: str
    host: str
    port: int
    mtu: str
    capture: str
    loops: str
    spin_us: str
    log_level: str


def router_argv(options: RouterOptions) -> list[str]:
    """Command line of the router."""
    argv = [sys.executable, "-P", "-m", "router"]
    argv += ["--control-socket", str(options.control_socket)]
    argv += ["--weave-bridge", options.bridge]
    if options.host:
        argv += ["--host", options.host]
    mtu = "auto" if options.mtu == "0" else options.mtu  # the original's way to say it
    argv += ["--port", str(options.port), "--mtu", mtu]
    argv += ["--capture", options.capture, "--loops", options.loops]
    return [*argv, "--spin-us", options.spin_us, "--log-level", options.log_level]


def weft_argv(*arguments: str) -> list[str]:
    """Command line of another ``weft`` of this very installation."""
    return [sys.executable, "-P", "-m", "control.cli", *arguments]


def replace_process(argv: Sequence[str]) -> NoReturn:
    """Become ``argv``, with our code on its import path."""
    ours = str(Path(__file__).resolve().parents[2])
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, *others])
    sys.stdout.flush()
    os.execv(argv[0], list(argv))
