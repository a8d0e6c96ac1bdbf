"""The C data path and its thin Python face.

``ffi`` and ``lib`` are the raw module that cffi built; :mod:`native.datapath` wraps handles and
tables. What each call does, who owns which memory and what it returns stands in
``native/include/weft_native.h`` and ``weft_datapath.h``.
"""

from __future__ import annotations

from native._datapath import ffi, lib

__all__ = ["ffi", "lib"]
