"""Extraction: samples without a row in the cache go through the frozen network, once."""
