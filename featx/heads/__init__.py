"""Heads: found by name, checked, and fitted on embeddings with weights, views and groups."""
