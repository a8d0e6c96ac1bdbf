"""Pods of a runtime that speaks the CRI, and runtimes that answer as they should not."""
