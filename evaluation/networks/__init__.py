"""Published networks from local weights."""
