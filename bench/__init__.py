"""Benchmarks: one stage (micro), the pipeline without a kernel (pipeline), the whole (system)."""
