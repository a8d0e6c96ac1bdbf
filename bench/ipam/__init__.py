"""Figures of the allocator."""
