"""Fuzzers of the Python parsers; see README.md here."""
