"""Nouns that every room shares. Imports nothing of ours from outside this room."""
