"""Backbones: frozen Keras networks with their layers, preprocessing and spaces."""

from featx._tensorflow import keep_tensorflow_quiet

keep_tensorflow_quiet()
