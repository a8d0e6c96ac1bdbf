"""Figures of a pod's start: our CNI plugins beside the reference ones."""
