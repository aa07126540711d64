"""One file a layout of data sets on disk."""
