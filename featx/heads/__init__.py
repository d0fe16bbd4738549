"""Heads: found by name, checked, and fitted with sample weights, augmented views and groups."""
