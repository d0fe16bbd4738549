"""Metrics of predictions with intervals and calibration, comparisons of heads, near-duplicates."""
