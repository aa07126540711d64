"""Scores to a page, tables and prose."""
