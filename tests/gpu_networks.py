"""Networks for processes that are tested: they tell which GPU their process sees."""

import os
from pathlib import Path

import keras


class Opaque:
    """Makes a network that cannot be identified."""

    def __call__(self, input_shape):
        handle = open(os.devnull)  # noqa: SIM115
        opaque = keras.layers.Lambda(lambda x: x if handle.closed else x * 2)
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, opaque(inputs))


class Unseeded:
    """Makes another network in each process."""

    def __call__(self, input_shape):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.Dense(3)(inputs))


class Exits:
    """Ends the process that makes the network, as a kernel does that is out of memory."""

    def __call__(self, input_shape):
        os._exit(1)


class TellsGpu:
    """Makes a network of vectors; each process that does adds a line to a file."""

    def __init__(self, notes):
        self.notes = str(notes)

    def __call__(self, input_shape):
        with Path(self.notes).open("a", encoding="ascii") as notes:
            notes.write(f"{os.environ['CUDA_VISIBLE_DEVICES']}\n")
        inputs = keras.Input(input_shape)
        outputs = keras.layers.Dense(3, kernel_initializer=keras.initializers.Orthogonal(seed=0))
        return keras.Model(inputs, outputs(inputs))
