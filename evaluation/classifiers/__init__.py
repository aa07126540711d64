"""Networks that tell findings: how they learn, and how well they do."""
