"""``python -m control.cli``: the same as ``weft``."""

from __future__ import annotations

import sys

from control.cli.main import main

sys.exit(main())
