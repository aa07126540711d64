"""Plots as inline SVG: no library, no request, scalable, readable by a screen reader."""
