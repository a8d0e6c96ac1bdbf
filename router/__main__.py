"""``python -m router``: the router process."""

from __future__ import annotations

import sys

from router.daemon import main

sys.exit(main())
