"""``weft demo``: a cluster on one machine, measured and shown, gone when it ends.

Exit codes: 0 every pair works; 1 a pair fails, or the user or the machine must mend something (one
line says what); 128 + n after signal n, so 130 after Ctrl-C. With ``--json`` standard output is one
object (:class:`lab.demo_run.Summary`) and nothing else; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from base.errors import WeftError
from base.importing import importing
from lab.plan import TOPOLOGIES


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="weft demo",
        description="Start routers in network namespaces of this machine, let them find each other "
        "from one target each, measure between their containers, show what travels between them, "
        "and remove everything again. Needs root.",
    )
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="hosts (default 3)")
    parser.add_argument(
        "--topology", default="mesh", metavar="T", help=f"{' | '.join(TOPOLOGIES)} (default mesh)"
    )
    parser.add_argument(
        "--seconds", type=int, default=1, metavar="S", help="length of each test (default 1)"
    )
    parser.add_argument("--encrypted", action="store_true", help="with a password, made up for it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = _arguments(argv)
    try:
        with importing():  # slow to import, and Ctrl-C must be quiet from the start
            from lab import demo_run
        return demo_run.main(
            demo_run.Options(
                nodes=options.nodes,
                topology=options.topology,
                seconds=options.seconds,
                encrypted=options.encrypted,
                as_json=options.json,
            )
        )
    except WeftError as err:
        print(f"weft demo: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
