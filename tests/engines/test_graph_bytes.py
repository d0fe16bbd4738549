"""Graphs as bytes: an engine that starts from them computes the same rows, or is refused."""

import keras
import numpy as np
import pytest
from sample_networks import convolutions, difference, pixels

from featx.engines.graph_bytes import converted_graph, engine_from, reference_inputs
from featx.engines.keras_engine import KerasEngine
from featx.engines.registry import CONVERTED, missing_packages
from featx.exceptions import EngineError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="converts Keras on TensorFlow"
)
ENGINES = [
    pytest.param(
        name, marks=pytest.mark.skipif(bool(missing_packages(name)), reason=f"needs featx[{name}]")
    )
    for name in CONVERTED
]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 2, 5])
def test_engine_from_graph_agrees_in_any_batch_size(name, batch_size):
    model, inputs = convolutions(), reference_inputs((16, 16, 3), "uint8")
    engine = KerasEngine(model, 4)
    widths = [model.output_shape[1]]
    stored = converted_graph(name, engine, inputs, widths)
    restored = engine_from(name, stored, inputs, batch_size=batch_size, widths=widths)
    images = pixels((16, 16, 3), n_images=5)
    expected = np.concatenate([engine.run(images[:4]), engine.run(images[4:])])
    del model, engine, stored
    larger = restored.resized(5)  # compiled again, from memory of its own
    assert difference(larger.run(images), expected) < 1e-4
    with pytest.raises(EngineError, match=r"differ|cannot run"):
        engine_from(name, bytes(4 * sum(widths) * 2), inputs, batch_size=2, widths=widths)


def test_converted_graph_of_infinite_rows_raises():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Rescaling(float("inf"))(inputs))
    with pytest.raises(EngineError, match="not finite"):
        converted_graph(
            "openvino", KerasEngine(model, 2), reference_inputs((4,), "float32"), widths=[4]
        )


def test_reference_inputs_of_vectors_are_standardized():
    inputs = reference_inputs((64,), "float32")
    assert inputs.dtype == np.float32
    assert np.abs(inputs).max() <= 1
    assert inputs.std(axis=1).min() > 0.5
