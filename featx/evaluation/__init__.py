"""Evaluation: metrics with intervals and calibration, comparisons of heads, near-duplicates."""
