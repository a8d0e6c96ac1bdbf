"""Whole meshes in memory: real pipelines, no kernel."""
