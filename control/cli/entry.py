"""Where ``weft`` begins: Ctrl-C during its imports, too, ends it without a trace."""

from __future__ import annotations

from typing import Final

from base.importing import importing

EXIT_INTERRUPTED: Final = 130


def main() -> int:
    """Run the command line of this process; the exit code."""
    try:
        with importing():
            from control.cli.main import main as run
        return run()  # until it takes care of that itself
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
