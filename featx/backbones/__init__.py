"""Frozen Keras networks: which one, which layer of it, and who runs it."""
