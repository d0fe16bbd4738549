"""Evaluation: metrics, comparisons of heads, near-duplicates, wrong labels, similar samples."""
