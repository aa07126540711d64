"""One file a feature space."""
