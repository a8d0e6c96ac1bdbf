"""How other processes are called: the one place that knows their command lines; none has a secret.

``-P`` keeps the working directory out of the import path: a folder called ``router`` lying there
must not become our router.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from control.cli.node_options import ControlOptions, RouterOptions
from control.cli.record import arguments


def router_argv(options: RouterOptions) -> list[str]:
    """Command line of the router."""
    return [sys.executable, "-P", "-m", "router", *arguments(options, RouterOptions)]


def control_argv(options: ControlOptions) -> list[str]:
    """Command line of control."""
    return [
        *(sys.executable, "-P", "-m", "control.cli", "control"),
        *arguments(options, ControlOptions),
    ]


def replace_process(argv: Sequence[str]) -> NoReturn:
    """Become ``argv``, with our code on its import path."""
    ours = str(Path(__file__).resolve().parents[2])
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, *others])
    sys.stdout.flush()
    os.execv(argv[0], list(argv))
