"""Tests of cni/."""
