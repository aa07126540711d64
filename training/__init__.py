"""From a base model and records to an adapter file, and from that to an image set."""
