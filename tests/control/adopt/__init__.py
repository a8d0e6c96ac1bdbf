"""What a Weave Net router remembered: its file, and what is made of it."""
