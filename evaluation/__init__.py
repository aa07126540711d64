"""From image sets to scores and reports."""
