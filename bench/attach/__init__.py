"""Figures of attaching containers."""
