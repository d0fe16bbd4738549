"""Backbones: frozen Keras networks with their layers, preprocessing and spaces."""
