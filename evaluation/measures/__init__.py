"""The mathematics that metrics share."""
