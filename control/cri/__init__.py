"""Pods of a runtime that speaks the Container Runtime Interface: containerd, CRI-O, cri-dockerd."""
