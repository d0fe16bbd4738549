"""What a saved file keeps, what `save` refuses, and what becomes of a file that was changed."""

import contextlib
import io
import json
import os
import threading
import zipfile

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.linear_model import SGDClassifier

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor, load, save
from featx.exceptions import BackboneError, ParameterError, SavedFileError, UntrustedTypesError
from featx.saving.manifest import _PARAMS, REQUESTS

rng = np.random.default_rng(0)
COLUMNS = pd.DataFrame(rng.normal(size=(20, 5)).astype("float32"), columns=list("abcde"))
LABELS = np.array(["no", "yes"] * 10)
IMAGES = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
# Not kept, as the docstring of `save` states.
LOST = {"extractor", "fine_tune", "cache", "also_cache", "_reports", "frontier_", "backbone"}


def dense(*layers, **kwargs):
    first = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(0), **kwargs)
    return keras.Sequential([keras.Input((5,)), first, *layers])


def fitted(head="logistic", **kwargs):
    extractor = FeatureExtractor(dense(), cache=None)
    return TransferClassifier(extractor, head, **kwargs).fit(COLUMNS, LABELS)


def round_trip(estimator, path):
    save(estimator, path)
    return load(path, cache=None)


def test_round_trip_keeps_the_names_of_columns(path):
    before = fitted()
    after = round_trip(before, path)
    for estimator in (after, after.extractor_):
        assert estimator.n_features_in_ == 5
        assert estimator.feature_names_in_.tolist() == list("abcde")
        assert estimator.feature_names_in_.dtype == object
    np.testing.assert_array_equal(after.predict(COLUMNS), before.predict(COLUMNS))
    for estimator in (before, after):
        with pytest.raises(ValueError, match="names should match"):
            estimator.predict(COLUMNS[list("edcba")])


def test_round_trip_frame_of_images_warns_not(path):
    frame = pd.DataFrame({"image": list(IMAGES)})
    before = TransferClassifier("tiny").fit(frame, LABELS[:6])
    after = round_trip(before, path)
    np.testing.assert_array_equal(after.predict(frame), before.predict(frame))


@pytest.mark.parametrize(
    "make",
    [
        lambda: fitted(random_state=3, verbose=2),
        lambda: TransferRegressor(FeatureExtractor(dense(), cache=None)).fit(
            COLUMNS, LABELS == "no"
        ),
        lambda: FeatureExtractor(dense(), cache=None, batch_size=8, n_jobs=2).fit(COLUMNS),
        lambda: TransferClassifier("tiny").fit(IMAGES, LABELS[:6]),
        lambda: TransferClassifier(
            FeatureExtractor("tiny", cache=None), fine_tune=FineTune(1, epochs=1), random_state=0
        ).fit(np.concatenate([IMAGES] * 2), np.tile(LABELS[:6], 2)),
    ],
    ids=["classifier", "regressor", "extractor", "images", "fine-tuned"],
)
def test_round_trip_keeps_what_joblib_keeps(make, path):
    before = make()
    after = round_trip(before, path)
    file = io.BytesIO()
    joblib.dump(before, file)
    file.seek(0)
    kept = joblib.load(file)
    pairs = [(kept, after)]
    if not isinstance(kept, FeatureExtractor):
        pairs.append((kept.extractor_, after.extractor_))
    for expected, found in pairs:
        lost = vars(expected).keys() - vars(found).keys() - LOST
        assert not lost
        for name in (
            vars(expected).keys() - LOST - {"extractor_", "head_", "report_", "preprocessing"}
        ):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    if hasattr(before, "report_"):
        assert json.dumps(after.report_) == json.dumps(before.report_)


def test_round_trip_keeps_the_range_of_floats(path):
    extractor = FeatureExtractor("tiny").fit(IMAGES)
    extractor.float_range_ = (0.0, 255.0)
    assert round_trip(extractor, path).float_range_ == (0.0, 255.0)


def test_round_trip_continues_partial_fit(path):
    head = SGDClassifier(random_state=0)
    before = TransferClassifier(FeatureExtractor(dense(), cache=None), head)
    before.partial_fit(COLUMNS[:10], LABELS[:10], classes=["no", "yes"])
    after = round_trip(before, path)
    for estimator in (before, after):
        estimator.partial_fit(COLUMNS[10:], LABELS[10:])
    np.testing.assert_array_equal(after.head_.coef_, before.head_.coef_)


def test_round_trip_keeps_output_and_requests(path):
    with config_context(enable_metadata_routing=True):
        extractor = FeatureExtractor(dense(), cache=None).set_transform_request(out=False)
        before = TransferClassifier(extractor.set_output(transform="default"))
        before.set_output(transform="pandas").set_score_request(sample_weight=True)
        before.set_fit_request(sample_weight="w", groups=False).fit(COLUMNS, LABELS)
    after = round_trip(before, path)
    for name in (None, "extractor", "extractor_"):
        kept, found = (getattr(each, name) if name else each for each in (before, after))
        assert str(found.get_metadata_routing()) == str(kept.get_metadata_routing())
        assert found._sklearn_output_config == kept._sklearn_output_config
    assert type(after.transform(COLUMNS)) is pd.DataFrame
    np.testing.assert_array_equal(after.transform(COLUMNS), before.transform(COLUMNS))
    extractor = round_trip(before.extractor_.set_output(transform="pandas"), path)
    assert isinstance(extractor.transform(COLUMNS), pd.DataFrame)
    assert extractor.get_metadata_routing().transform.requests == {"out": False}


@pytest.mark.parametrize("kind", [FeatureExtractor, TransferClassifier, TransferRegressor])
def test_manifest_knows_each_metadata_request(kind):
    routing = kind().get_metadata_routing()
    known = {method: set(names) for method, names in REQUESTS[kind.__name__].items()}
    methods = {name for name in dir(routing) if hasattr(getattr(routing, name), "requests")}
    found = {name: set(getattr(routing, name).requests) for name in methods}
    assert {method: names for method, names in found.items() if names} == known


def test_load_relative_path_works_after_chdir(path, tmp_path, monkeypatch):
    before = fitted()
    save(before, path)
    monkeypatch.chdir(tmp_path)
    after = load("model.featx", cache=None)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    path.unlink()
    np.testing.assert_array_equal(after.predict(COLUMNS), before.predict(COLUMNS))


def test_manifest_knows_each_parameter_of_the_extractor():
    params = FeatureExtractor().get_params(deep=False).keys()
    assert params == _PARAMS.keys() | {
        *("backbone", "preprocessing", "read", "cache", "also_cache")
    }


# What `save` refuses: at once, by name, and with nothing written.


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x + 1


@keras.saving.register_keras_serializable("featx_saved_state")
class Forgetful(keras.layers.Layer):
    """A layer whose configuration is incomplete."""

    def __init__(self, shift=0.0, **kwargs):
        super().__init__(**kwargs)
        self.shift = shift

    def call(self, x):
        return x + self.shift

    def get_config(self):
        return keras.layers.Layer.get_config(self)


@keras.saving.register_keras_serializable("featx_saved_state")
class Raising(keras.layers.Layer):
    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError("no configuration")


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (lambda: keras.layers.Lambda(lambda x: x + 1), "loading it again fails.*a Lambda"),
        (Unregistered, r"loading it again fails.*register_keras_serializable"),
        (lambda: Forgetful(2.0), "loading it again fails.*embeddings of the space"),
        (Raising, "cannot be saved"),
    ],
)  # fmt: skip
def test_save_backbone_that_cannot_be_loaded_raises(layer, fault, path):
    extractor = FeatureExtractor(dense(layer()), cache=None).fit(COLUMNS)
    path.write_bytes(b"as it was")
    with pytest.raises(BackboneError, match=fault):
        save(extractor, path)
    assert path.read_bytes() == b"as it was"
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["model.featx"]


@pytest.mark.filterwarnings("ignore:embeddings are not cached")
def test_save_backbone_that_cannot_be_identified_raises(path):
    lock = threading.Lock()
    layer = keras.layers.Lambda(lambda x: x + lock.locked())
    extractor = FeatureExtractor(dense(layer), cache=None).fit(COLUMNS)
    with pytest.raises(BackboneError, match="cannot be identified"):
        save(extractor, path)


def test_save_changed_backbone_raises(path):
    model = dense()
    extractor = FeatureExtractor(model, cache=None).fit(COLUMNS)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    with pytest.raises(BackboneError, match="other embeddings now"):
        save(extractor, path)


def test_save_parameter_that_cannot_be_loaded_raises(path):
    extractor = FeatureExtractor(dense(), cache=None, n_jobs=10**6).fit(COLUMNS)
    with pytest.raises(ParameterError, match=r"params\.n_jobs=1000000"):
        save(extractor, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_save_over_named_pipe_raises_first(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    extractor = FeatureExtractor(dense(), cache=None).fit(COLUMNS)
    for place in (tmp_path / "pipe", os.devnull):
        with pytest.raises(ParameterError, match=r"is a (named pipe|device): expected"):
            save(extractor, place)
    with pytest.raises(OSError, match=r"name too long|File name"):
        save(extractor, tmp_path / ("x" * 300))
    with pytest.raises(ParameterError, match="null"):
        save(extractor, tmp_path / "a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_load_irregular_file_raises(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "link", "/dev/zero", os.devnull):
        with pytest.raises(SavedFileError, match="not a regular file"):
            load(place)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["pipe.keras", "pipe"])
def test_backbone_or_weights_of_a_pipe_raise(name, tmp_path):
    os.mkfifo(tmp_path / name)
    given = [{"backbone": str(tmp_path / name)}, {"weights": str(tmp_path / name)}]
    for params in [*given, {"weights": "/dev/zero"}, {"backbone": "/dev/zero"}]:
        with pytest.raises(ParameterError, match="an existing"):
            FeatureExtractor(**params).fit(IMAGES)


# Files that were changed.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the members of a saved file, and what it predicts."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATX_CACHE", str(folder / "cache"))
        classifier = TransferClassifier("tiny").fit(IMAGES, LABELS[:6])
        save(classifier, folder / "model.featx")
        with zipfile.ZipFile(folder / "model.featx") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        return members, (folder / "model.featx").read_bytes(), classifier.predict_proba(IMAGES)


def outcome(data, saved, tmp_path):
    """Load a file, which either fails as documented or predicts as before."""
    path = tmp_path / "changed.featx"
    path.write_bytes(data)
    try:
        loaded = load(path)
        predicted = loaded.predict_proba(IMAGES)
    except (SavedFileError, UntrustedTypesError) as exc:
        return type(exc)
    np.testing.assert_array_equal(predicted, saved[2])
    return None


def run_examples(check, n_examples):
    settings(max_examples=n_examples, deadline=None, derandomize=True)(given(st.data())(check))()


N_EXAMPLES = pytest.mark.parametrize(
    "n_examples", [150, pytest.param(2000, marks=pytest.mark.long)]
)


def swapped(data, config):
    """Return a model whose configuration is another."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return archive_of({**members, "config.json": json.dumps(config)})


@pytest.mark.parametrize("name", ["backbone.keras", "preprocessing.keras"])
def test_load_models_with_code_are_refused(name, path):
    scaling = keras.layers.Rescaling(0.5)
    save(FeatureExtractor(dense(), preprocessing=scaling, cache=None).fit(COLUMNS), path)
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    evil = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}}
    path.write_bytes(archive_of({**members, name: swapped(members[name], evil)}))
    with pytest.raises(SavedFileError, match=r"Lambda of keras\.layers"):
        load(path, cache=None)
    path.write_bytes(archive_of({**members, name: b"junk"}))
    with pytest.raises(SavedFileError, match="the Keras model in it is damaged"):
        load(path, cache=None)
    path.write_bytes(archive_of({each: part for each, part in members.items() if each != name}))
    with pytest.raises(SavedFileError, match="it has the members"):
        load(path, cache=None)


def test_load_scaling_that_does_not_fit_raises(path):
    scaling = keras.layers.Rescaling(0.5)
    save(FeatureExtractor(dense(), preprocessing=scaling, cache=None).fit(COLUMNS), path)
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    other = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    other.save(path.with_suffix(".keras"))
    members["preprocessing.keras"] = path.with_suffix(".keras").read_bytes()
    path.write_bytes(archive_of(members))
    with pytest.raises(SavedFileError, match="cannot be used"):
        load(path, cache=None)


@N_EXAMPLES
def test_load_damaged_bytes_never_predict_otherwise(n_examples, saved, tmp_path):
    def check(data):
        content = bytearray(saved[1])
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        outcome(bytes(content), saved, tmp_path)

    run_examples(check, n_examples)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.just("/dev/zero"),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def places_in(value, path=()):
    """Find the paths of all fields of a manifest."""
    for name, part in value.items():
        yield (*path, name)
        if isinstance(part, dict):
            yield from places_in(part, (*path, name))


def archive_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@N_EXAMPLES
def test_load_edited_manifest_never_predicts_otherwise(n_examples, saved, tmp_path):
    def check(data):
        manifest = json.loads(saved[0]["featx.json"])
        *parents, name = data.draw(st.sampled_from(list(places_in(manifest))))
        part = manifest
        for parent in parents:
            part = part[parent]
        if data.draw(st.booleans()):
            part[name] = data.draw(JUNK)
        else:
            del part[name]
        changed = {"featx.json": json.dumps(manifest)}
        outcome(archive_of({**saved[0], **changed}), saved, tmp_path)

    run_examples(check, n_examples)


@N_EXAMPLES
def test_load_damaged_head_raises_saved_file_error(n_examples, saved, tmp_path):
    """Also where the checksums of the archives were made to fit."""
    with zipfile.ZipFile(io.BytesIO(saved[0]["head.skops"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def check(data):
        name = data.draw(st.sampled_from(sorted(members)))
        content = bytearray(members[name])
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        head = archive_of({**members, name: bytes(content)})
        path = tmp_path / "changed.featx"
        path.write_bytes(archive_of({**saved[0], "head.skops": head}))
        # It may load as another head: whoever makes a file decides what it predicts.
        with contextlib.suppress(SavedFileError, UntrustedTypesError):
            load(path)

    run_examples(check, n_examples)
