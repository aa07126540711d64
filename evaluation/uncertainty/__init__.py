"""Intervals, differences and tests."""
