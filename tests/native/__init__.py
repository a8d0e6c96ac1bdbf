"""Tests of the C code, through its cffi face."""
