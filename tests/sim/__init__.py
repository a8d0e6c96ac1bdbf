"""Whole nodes and meshes on fakes: clock, network, TAP; no kernel."""
