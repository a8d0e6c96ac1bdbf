"""Tests of the allocator and its parts."""
