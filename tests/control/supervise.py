"""Runs a Supervisor over any two commands: ``supervise.py '["argv"...]' '["argv"...]'``."""

from __future__ import annotations

import json
import sys

import anyio

from base import log
from control.supervisor import Supervisor

if __name__ == "__main__":
    log.setup("debug")
    sys.exit(anyio.run(Supervisor(json.loads(sys.argv[1]), json.loads(sys.argv[2])).run))
