"""Inputs: the samples in ``X``, their order, identity and pixels."""
