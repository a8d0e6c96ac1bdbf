"""What a Weave Net router remembered, for the node that takes its place."""
