"""``python -m router``: the router process."""

from __future__ import annotations

import sys

from base.importing import importing

with importing():
    from router.daemon import main

sys.exit(main())
