"""``python -m control.cli``: the same as ``weft``."""

from __future__ import annotations

import sys

from control.cli.entry import main

sys.exit(main())
