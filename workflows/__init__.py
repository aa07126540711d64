"""Saved graphs, the client that runs them, and comparisons in bulk."""
