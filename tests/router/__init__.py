"""Tests of the router room."""
