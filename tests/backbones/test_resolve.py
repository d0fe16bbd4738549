"""From a parameter to its space: remembered where that is safe, and only there."""

import contextlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from featx import EmbeddingCache, FeatureExtractor
from featx.backbones import build
from featx.backbones.registry import TINY_FILE
from featx.backbones.resolve import _BUILT, _MAX_BUILT, _model_identity, resolve
from featx.exceptions import BackboneError, NotCachedWarning, UnstableBackboneWarning, WeightsError


def build_seeded(input_shape):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
        ]
    )


def build_unseeded(input_shape):
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(4)])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def run(X, backbone, **params):
    extractor = FeatureExtractor(backbone, **params)
    rows = extractor.fit_transform(X)
    return rows, extractor.report_


def spec_of(backbone, weights):
    return FeatureExtractor(backbone, weights=weights)._spec()


def forget_built():
    """Do as a new process would."""
    _BUILT.clear()


def test_resolve_changed_file_is_another_space(images, tmp_path):
    path = tmp_path / "mine.keras"
    model = build_seeded((64, 64, 3))
    model.save(path)
    os.utime(path, (0, 0))
    first, report = run(images, path)
    assert report.n_forward == 4
    model.layers[-1].kernel.assign(model.layers[-1].kernel + 1)
    model.save(path)
    second, report = run(images, str(path))
    assert report.n_forward == 4
    assert not np.allclose(first, second)


def test_resolve_copied_file_is_the_same_space(images, tmp_path):
    copy = tmp_path / "copy.keras"
    copy.write_bytes(TINY_FILE.read_bytes())
    run(images, TINY_FILE)
    assert run(images, copy)[1].n_forward == 0


def test_resolve_name_and_file_share_rows(images):
    run(images, "tiny")
    assert run(images, TINY_FILE, preprocessing="tf")[1].n_forward == 0


@pytest.mark.parametrize("names", [("imagenet", "pretrained"), ("pretrained", "imagenet")])
def test_resolve_imagenet_and_pretrained_share_rows(names, images):
    first, other = (FeatureExtractor("tiny", weights=weights) for weights in names)
    rows = first.fit_transform(images)
    forget_built()
    np.testing.assert_array_equal(other.fit_transform(images), rows)
    assert (first.report_.n_forward, other.report_.n_forward) == (4, 0)
    assert (first.space_digest_, first.space_.label) == (other.space_digest_, other.space_.label)


@pytest.mark.parametrize("weights", ["imagenet", "pretrained"])
def test_source_of_published_weights_keeps_its_hash(weights):
    """Caches of the first version remember spaces under recipes that hold "imagenet"."""
    spec = spec_of("mobilenet_v2", weights=weights)
    source = _model_identity(spec, None, None)
    assert source["source"] == {"name": "mobilenet_v2", "weights": "imagenet"}


def test_resolve_warm_file_needs_no_keras(images, tmp_path):
    run(images, TINY_FILE)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np\n"
        "from featx import FeatureExtractor\n"
        f"e = FeatureExtractor({str(TINY_FILE)!r})\n"
        f"e.fit_transform(np.load({str(tmp_path / 'images.npy')!r}))\n"
        "print(e.report_.n_forward, {'keras', 'tensorflow', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "0 set()"


def test_resolve_seeded_callable_is_one_space(images):
    rows, _ = run(images, build_seeded)
    forget_built()
    again, report = run(images, build_seeded)
    assert report.n_forward == 0
    np.testing.assert_array_equal(rows, again)


def test_resolve_callable_that_gives_other_weights_warns(images):
    first, _ = run(images, build_unseeded)
    forget_built()
    with pytest.warns(UnstableBackboneWarning, match="build_unseeded returned a model with other"):
        second, report = run(images, build_unseeded)
    assert report.n_forward == 4
    assert not np.allclose(first, second)


def test_resolve_callable_runs_once_per_shape(images):
    called = []

    def build(input_shape):
        called.append(input_shape)
        return build_seeded(input_shape)

    for X in (images, images[:2], images[:, :32, :32]):
        run(X, build)
    assert called == [(64, 64, 3), (32, 32, 3)]


def test_resolve_unhashable_code_is_not_cached(images):
    inputs = keras.Input((64, 64, 3))
    handle = open(os.devnull)  # noqa: SIM115
    opaque = layers.Lambda(lambda x: x if handle.closed else x * 2)
    model = keras.Model(inputs, layers.Flatten()(opaque(inputs)))
    for _ in range(2):
        with pytest.warns(NotCachedWarning, match="not cached"):
            rows, report = run(images, model)
        assert (report.n_forward, report.bytes_written) == (4, 0)
    np.testing.assert_allclose(rows, images.reshape(4, -1) * 2.0)
    handle.close()


def test_resolve_unhashable_callable_finds_its_rows(images):
    class Builder:
        def __init__(self):
            self.handle = open(os.devnull)  # noqa: SIM115

        def __call__(self, input_shape):
            return build_seeded(input_shape)

    builder = Builder()
    run(images, builder)
    assert run(images, builder)[1].n_forward == 0
    builder.handle.close()


def test_resolve_preprocessing_layer_changes_the_space(images):
    run(images, "tiny", preprocessing=layers.Rescaling(0.5))
    assert run(images, "tiny", preprocessing=layers.Rescaling(0.5))[1].n_forward == 0
    assert run(images, "tiny", preprocessing=layers.Rescaling(0.25))[1].n_forward == 4


def test_resolve_parameters_of_all_kinds_differ(images):
    for alpha in (0.35, 0.5):
        params = {"alpha": alpha}
        _, report = run(images, "mobilenet_v2", weights=None, input_size=32, backbone_params=params)
        assert report.n_forward == 4


def test_resolve_object_among_the_parameters(images):
    params = {"alpha": 0.35, "name": np.str_("mine")}
    for expected in (4, 0):
        _, report = run(images, "mobilenet_v2", weights=None, input_size=32, backbone_params=params)
        assert report.n_forward == expected


def test_resolve_unwritable_cache_only_costs_time(images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    from featx.exceptions import CacheWriteWarning

    with pytest.warns(CacheWriteWarning):
        rows, _ = run(images, "tiny", cache=tmp_path / "file" / "cache")
    assert np.isfinite(rows).all()


def test_resolve_vanishing_weights_raises(tmp_path):
    weights = tmp_path / "gone.h5"
    spec = FeatureExtractor("mobilenet_v2", weights=weights)._spec()
    with pytest.raises(WeightsError, match=r"gone\.h5' cannot be read: No such file"):
        resolve(spec, array_shape=None, cache=EmbeddingCache(tmp_path))


def test_resolve_keeps_few_built_backbones(images):
    for size in range(4, 4 + _MAX_BUILT + 2):
        run(images[:1], build_seeded, input_size=size, cache=None)
    assert len(_BUILT) <= _MAX_BUILT


def test_load_backbone_preprocessing_layer_stays_apart(images):
    rows = [
        FeatureExtractor(
            "mobilenet_v2",
            weights=None,
            input_size=32,
            backbone_params={"alpha": alpha},
            preprocessing=layers.Rescaling(1 / 255),
            cache=None,
        ).fit_transform(images)
        for alpha in (0.35, 1.4)
    ]
    assert rows[0].shape[1] != rows[1].shape[1]


def test_resolve_built_subclassed_model_is_cached(images):
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3, kernel_initializer="ones")

        def call(self, x):
            return self.conv(x)

    model = Mine()
    model(images.astype(np.float32))
    rows, report = run(images, model, preprocessing="unit")
    assert rows.shape == (4, 4)
    assert report.n_forward == 4
    again, report = run(images, model, preprocessing="unit")
    np.testing.assert_array_equal(again, rows)
    assert report.n_forward == 0


def test_load_backbone_unlike_remembered_raises(images):
    """A file of weights that was replaced, or another release, gives other rows under one name."""
    _, report = run(images[:2], "tiny")
    assert report.n_forward == 2
    forget_built()
    with monkeypatched_weights("tiny"):
        with pytest.raises(BackboneError, match=r"tiny differs from .*, in: graph"):
            run(images, "tiny")
        _, report = run(images, "tiny")  # what was built is remembered from then on
        assert report.n_forward == 4
    forget_built()


@contextlib.contextmanager
def monkeypatched_weights(name):
    """Build a named network with other weights, as after a change of its library."""
    original = build.named_model

    def changed(*args, **kwargs):
        model = original(*args, **kwargs)
        model.weights[0].assign(model.weights[0] + 1)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "named_model", changed)
        yield


def test_resolve_custom_layer_file_is_always_built(images, tmp_path, monkeypatch):
    """Its code may change while the file stays the same."""
    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((64, 64, 3)), layers.Flatten(), Times()]).save(path)
    assert run(images, path)[1].n_forward == 4
    forget_built()
    assert run(images, path)[1].n_forward == 0
    forget_built()
    monkeypatch.setattr(Times, "call", lambda self, inputs: inputs * 3)
    rows, report = run(images, path)
    assert report.n_forward == 4
    np.testing.assert_allclose(rows, images.reshape(4, -1) * 3.0)


@keras.saving.register_keras_serializable("featx_resolution")
class Times(layers.Layer):
    def call(self, inputs):
        return inputs * 2


def test_resolve_registered_again_uses_new_code(images, tmp_path):
    """Notebooks run the cell with a layer's class again."""

    def define(factor):
        @keras.saving.register_keras_serializable("featx_resolution", "Again")
        class Again(layers.Layer):
            def call(self, inputs):
                return inputs * factor

        return Again()

    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((64, 64, 3)), layers.Flatten(), define(2)]).save(path)
    run(images, path)
    define(3)
    rows, report = run(images, path)
    assert report.n_forward == 4
    np.testing.assert_allclose(rows, images.reshape(4, -1) * 3.0)


def test_resolve_function_registered_again_counts(images, tmp_path):
    def define(factor):
        @keras.saving.register_keras_serializable("featx_resolution", "scaled")
        def scaled(x):
            return x * factor

        return layers.Activation(scaled)

    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((64, 64, 3)), layers.Flatten(), define(2)]).save(path)
    run(images, path)
    define(3)
    rows, _ = run(images, path)
    np.testing.assert_allclose(rows, images.reshape(4, -1) * 3.0)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cache", [None, "auto"])
def test_resolve_changed_sequential_uses_new_graph(nested, cache):
    X = np.float32([[1, 2, 3, 4]])
    changed = keras.Sequential([keras.Input((4,)), layers.Rescaling(2), layers.ReLU()])
    model = keras.Sequential([keras.Input((4,)), changed]) if nested else changed
    run(X, model, cache=cache)
    changed.pop()
    changed.add(layers.Rescaling(5))
    rows, _ = run(X, model, cache=cache)
    np.testing.assert_allclose(rows, X * 10)


def test_transform_popped_sequential_raises():
    X = np.float32([[1, 2, 3, 4]])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(3)])
    extractor = FeatureExtractor(model).fit(X)
    model.pop()
    with pytest.raises(BackboneError, match="other embeddings now than when fit was called"):
        extractor.transform(X)


class Scaled:
    """A factory whose attribute decides its model, and that counts its calls."""

    def __init__(self, factor):
        self.factor, self.n_calls = factor, 0

    def __call__(self, input_shape):
        self.n_calls += 1
        scaling = layers.Rescaling(self.factor)
        return keras.Sequential([keras.Input(input_shape), scaling])


@pytest.mark.parametrize("cache", [None, "auto"])
def test_resolve_changed_factory_is_called_again(cache):
    X = np.float32([[1, 2, 3, 4]])
    factory = Scaled(2)
    run(X, factory, cache=cache)
    factory.factor = 3
    for _ in range(2):
        rows, _ = run(X, factory, cache=cache)
        np.testing.assert_allclose(rows, X * 3)
    assert factory.n_calls == 2
    again, _ = run(X, Scaled(3), cache=cache)
    np.testing.assert_allclose(again, X * 3)
