"""TransferClassifier and TransferRegressor: fit, predict, parameters, passes in a search."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, TransferRegressor
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    BadSampleWarning,
    InputError,
    ParameterError,
)


@pytest.fixture
def paths(images, tmp_path):
    names = [tmp_path / f"{number}.png" for number in range(len(images))]
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(name)
    return np.array([str(name) for name in names])


def n_forward():
    return EmbeddingCache().info()["n_forward"]


@pytest.mark.parametrize(
    "head", ["logistic", "ridge", "svm", "knn", "nearest_mean", "lda", "forest"]
)
def test_classifier_named_head_learns(head, images, labels):
    classifier = TransferClassifier("tiny", head=head, random_state=0).fit(images, labels)
    assert classifier.score(images, labels) == 1
    assert classifier.classes_.tolist() == ["dark", "light"]


@pytest.mark.parametrize("head", ["ridge", "svm", "knn", "forest"])
def test_regressor_named_head_learns(head, images):
    y = images.mean(axis=(1, 2, 3)) / 100
    regressor = TransferRegressor("tiny", head=head, random_state=0).fit(images, y)
    assert regressor.score(images, y) > 0.9


@pytest.mark.parametrize(
    "extractor", [None, "tiny", FeatureExtractor("tiny")], ids=["none", "name", "extractor"]
)
def test_classifier_extractor_shorthands(extractor, images, labels):
    if extractor is None:
        assert TransferClassifier().get_params()["extractor__backbone"] == "mobilenet_v2"
    else:
        assert TransferClassifier(extractor).fit(images, labels).score(images, labels) == 1


def test_classifier_leaves_keras_model_unchanged(images, labels):
    import keras

    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(4, 3)])
    weights = [np.array(w) for w in model.get_weights()]
    classifier = TransferClassifier(model).fit(images, labels)
    assert classifier.score(images, labels) > 0.9
    assert clone(classifier).extractor is model
    assert all(layer.trainable for layer in model.layers)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_fit_reports_passes_and_head_time(paths, labels):
    classifier = TransferClassifier("tiny").fit(paths, labels)
    report = classifier.report_
    assert (report.n_samples, report.n_forward, report.n_hits) == (20, 20, 0)
    assert set(report.seconds) == {"identify", "look_up", "forward", "convert", "head"}


def test_cross_validate_forwards_each_image_once(paths, labels):
    results = cross_validate(TransferClassifier("tiny"), paths, labels, cv=5)
    assert results["test_score"].mean() == 1
    assert n_forward() == 20


def test_grid_search_over_head_forwards_once(paths, labels):
    grid = {"head__C": [0.1, 1.0, 10.0]}
    search = GridSearchCV(TransferClassifier("tiny"), grid, cv=2).fit(paths, labels)
    assert search.best_params_["head__C"] == search.best_estimator_.head[-1].C
    assert n_forward() == 20


def test_grid_search_forwards_once_per_space(paths, labels):
    grid = {"extractor__layer": ["stage2", "stage3"], "extractor__pooling": ["avg", "max"]}
    estimator = TransferClassifier("tiny", head="ridge")
    GridSearchCV(estimator, grid, cv=2).fit(paths, labels)
    assert n_forward() == 4 * 20
    assert EmbeddingCache().info()["n_rows"] == 4 * 20


def test_grid_search_on_cached_rows_forwards_none(paths, labels):
    estimator = TransferClassifier("tiny").fit(paths, labels)
    GridSearchCV(estimator, {"head__C": [0.1, 1.0]}, cv=2, n_jobs=2).fit(paths, labels)
    assert n_forward() == 20


def test_warm_fit_imports_no_tensorflow(paths, labels):
    TransferClassifier("tiny").fit(paths, labels)
    code = f"""if True:
        import sys
        from featx import TransferClassifier
        classifier = TransferClassifier("tiny").fit({paths.tolist()!r}, {labels.tolist()!r})
        classifier.predict({paths.tolist()!r})
        assert not {{"tensorflow", "keras", "h5py", "jax"}} & set(sys.modules), "imported"
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_predict_proba_and_scores_are_the_heads(images, labels):
    classifier = TransferClassifier("tiny").fit(images, labels)
    embeddings = classifier.transform(images).astype(np.float64)
    head = classifier.head_
    np.testing.assert_array_equal(classifier.predict_proba(images), head.predict_proba(embeddings))
    np.testing.assert_array_equal(
        classifier.predict_log_proba(images), head.predict_log_proba(embeddings)
    )
    np.testing.assert_array_equal(
        classifier.decision_function(images), head.decision_function(embeddings)
    )


def test_estimators_unfitted_raise_not_fitted(images):
    for estimator in (TransferClassifier("tiny"), TransferRegressor("tiny")):
        with pytest.raises(NotFittedError):
            estimator.predict(images)
        with pytest.raises(NotFittedError):
            estimator.transform(images)


def test_fit_changes_no_parameter(images, labels):
    head, extractor = (
        make_pipeline(StandardScaler(), LogisticRegression()),
        FeatureExtractor("tiny"),
    )
    estimator = TransferClassifier(extractor, head, random_state=0).fit(images, labels)
    assert estimator.head is head
    assert estimator.extractor is extractor
    assert not hasattr(head[-1], "coef_")
    assert not hasattr(extractor, "feature_shape_")


def test_fit_random_state_makes_forests_repeatable(images, labels):
    head = RandomForestClassifier(5)
    one, two = (
        TransferClassifier("tiny", head, random_state=0).fit(images, labels) for _ in range(2)
    )
    np.testing.assert_array_equal(one.predict_proba(images), two.predict_proba(images))
    assert head.random_state is None


def test_fit_weights_equal_repeated_samples(images, labels):
    """The scaling before the head is weighted too."""
    weights = np.arange(len(labels)) % 3
    weighted = TransferClassifier("tiny").fit(images, labels, sample_weight=weights)
    repeated = TransferClassifier("tiny").fit(images.repeat(weights, 0), labels.repeat(weights))
    plain = TransferClassifier("tiny").fit(images, labels)
    scores = [each.decision_function(images) for each in (weighted, repeated, plain)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-2)
    assert np.abs(scores[0] - scores[2]).max() > 0.1


def test_fit_extractor_that_gives_frames(images, labels):
    extractor = FeatureExtractor("tiny").set_output(transform="pandas")
    classifier = TransferClassifier(extractor, "ridge").fit(images, labels)
    assert classifier.score(images, labels) == 1


def test_frame_works_with_bagging_and_permutation_importance(paths, labels):
    from sklearn.ensemble import BaggingClassifier
    from sklearn.inspection import permutation_importance

    frame = pd.DataFrame({"image": paths})
    bagging = BaggingClassifier(TransferClassifier("tiny", "ridge"), n_estimators=3, random_state=0)
    assert bagging.fit(frame, labels).score(frame, labels) == 1
    classifier = TransferClassifier("tiny", "ridge").fit(frame, labels)
    importance = permutation_importance(classifier, frame, labels, random_state=0, n_repeats=2)
    assert importance.importances_mean[0] > 0.2
    assert n_forward() == len(paths)


def test_fit_column_y_warns(images, labels):
    from sklearn.exceptions import DataConversionWarning

    with pytest.warns(DataConversionWarning):
        classifier = TransferClassifier("tiny").fit(images, labels[:, np.newaxis])
    assert classifier.predict(images).shape == (20,)


def test_fit_one_column_frame_and_series(paths, labels):
    frame = pd.DataFrame({"image": paths})
    classifier = TransferClassifier("tiny").fit(frame, pd.Series(labels))
    assert classifier.score(frame, labels) == 1


def test_fit_vectors_sets_n_features_in():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    X = np.random.default_rng(0).normal(size=(10, 4))
    frame = pd.DataFrame(X, columns=list("abcd"))
    classifier = TransferClassifier(model).fit(frame, np.arange(10) % 2)
    assert classifier.n_features_in_ == 4
    assert classifier.feature_names_in_.tolist() == list("abcd")


@pytest.mark.parametrize(
    ("estimator", "y", "message"),
    [
        (TransferClassifier("tiny"), None, "y to be passed"),
        (TransferClassifier("tiny"), ["a"] * 19, "X has 20 samples and y has 19"),
        (TransferClassifier("tiny"), ["a"] * 20, "one class only, 'a'"),
        (TransferClassifier("tiny"), np.linspace(0, 1, 20), "Unknown label type"),
        (TransferRegressor("tiny"), ["a", "b"] * 10, "a regressor needs numbers"),
        (TransferRegressor("tiny"), [np.nan] * 20, "NaN"),
        (TransferClassifier("tiny", fine_tune=2), ["a", "b"] * 10, "expected a FineTune"),
        (TransferClassifier(StandardScaler()), ["a", "b"] * 10, "a FeatureExtractor"),
        (TransferRegressor("tiny", head="logistic"), np.arange(20), "expected one of 'ridge'"),
    ],
)
def test_fit_bad_input_raises_before_the_pass(estimator, y, message, paths):
    with pytest.raises(ValueError, match=message):
        estimator.fit(paths, y)
    assert n_forward() == 0


def test_fit_unpooled_embeddings_raise(images, labels):
    extractor = FeatureExtractor("tiny", layer="stage1", pooling=None)
    with pytest.raises(ParameterError, match="pass another pooling"):
        TransferClassifier(extractor).fit(images, labels)
    assert n_forward() == 0


def test_fit_unreadable_sample_raises(paths, labels):
    Path(paths[3]).write_bytes(b"")
    with pytest.raises(BadSampleError, match="1 of 20 samples"):
        TransferClassifier("tiny").fit(paths, labels)


def test_fit_on_error_nan_warns_of_rows(paths, labels):
    Path(paths[3]).write_bytes(b"")
    extractor = FeatureExtractor("tiny", on_error="nan")
    with pytest.warns(BadSampleWarning) as caught:
        classifier = TransferClassifier(extractor).fit(paths, labels, sample_weight=np.ones(20))
    assert len(caught) == 1
    assert "1 of 20 samples cannot be read:" in str(caught[0].message)
    assert "leaves these rows out of training and scores" in str(caught[0].message)
    assert classifier.report_.n_unread == 1
    assert classifier.score(np.delete(paths, 3), np.delete(labels, 3)) == 1


def test_fit_backbone_that_gives_nan_raises(images, labels):
    inputs = keras.Input((64, 64, 3))
    network = keras.Model(inputs, inputs / keras.ops.max(inputs, axis=(1, 2, 3), keepdims=True))
    images[3:5] = 0  # which is NaN when it is divided by its maximum
    extractor = FeatureExtractor(network, on_error="nan")
    with pytest.raises(
        BackboneError, match=r"gives NaN or infinite values for 1 of 18 .*\[3\] array"
    ):
        TransferClassifier(extractor).fit([*images[:19], b"no image"], labels)


def test_fit_on_error_nan_nothing_readable_raises(paths, labels):
    for path in paths:
        Path(path).write_bytes(b"")
    extractor = FeatureExtractor("tiny", on_error="nan")
    with pytest.warns(BadSampleWarning), pytest.raises(InputError, match="none of the 20"):
        TransferClassifier(extractor).fit(paths, labels)


def test_predict_on_error_nan_unreadable_sample_raises(paths, labels):
    extractor = FeatureExtractor("tiny", on_error="nan")
    classifier = TransferClassifier(extractor).fit(paths, labels)
    Path(paths[3]).write_bytes(b"")
    with pytest.warns(BadSampleWarning), pytest.raises(InputError, match=r"rows \[3\]"):
        classifier.predict(paths)


def test_verbose_shows_progress_and_zero_is_silent(images, labels, capsys, monkeypatch):
    monkeypatch.setattr("featx._progress._SHOWN_AFTER_S", 0.0)
    TransferClassifier("tiny").fit(images, labels)
    assert capsys.readouterr() == ("", "")
    TransferClassifier(FeatureExtractor("tiny", cache=None), verbose=1).fit(images, labels)
    assert "20/20" in capsys.readouterr().err


@pytest.fixture
def with_bad_file(tmp_path):
    """Twelve images, one of them gone, and their labels."""
    paths, labels = [], []
    for number in range(12):
        paths.append(str(tmp_path / f"{number}.png"))
        level = 40 if number % 2 else 200
        noise = np.random.default_rng(number).integers(0, 40, (64, 64, 3))
        Image.fromarray((level + noise).astype(np.uint8)).save(paths[-1])
        labels.append("dark" if number % 2 else "light")
    Path(paths[4]).unlink()
    return paths, labels


@pytest.mark.filterwarnings("ignore::featx.exceptions.BadSampleWarning")
def test_grid_search_on_error_nan_scores_readable(with_bad_file):
    paths, labels = with_bad_file
    classifier = TransferClassifier(FeatureExtractor("tiny", on_error="nan"))
    search = GridSearchCV(classifier, {"head__C": [0.01, 1]}, cv=3, error_score="raise")
    assert search.fit(paths, labels).best_score_ == 1


def test_score_on_error_nan_warns(with_bad_file):
    paths, labels = with_bad_file
    classifier = TransferClassifier(FeatureExtractor("tiny", on_error="nan"))
    with pytest.warns(BadSampleWarning):
        classifier.fit(paths, labels)
    with pytest.warns(BadSampleWarning) as caught:
        assert classifier.score(paths, labels, sample_weight=np.ones(12)) == 1
    assert len(caught) == 1
    assert "leaves these rows out of training and scores" in str(caught[0].message)
    assert classifier.score(paths[:4], labels[:4]) == 1


def test_regressor_score_is_r2(images):
    y = images.mean(axis=(1, 2, 3))
    regressor = TransferRegressor("tiny").fit(images, y)
    assert regressor.score(images, y) == pytest.approx(r2_score(y, regressor.predict(images)))


@pytest.mark.parametrize("X", [Path("photos"), None, {"data": ["a.png"]}])
def test_fit_invalid_x_raises_as_transform(X):
    with pytest.raises(InputError, match="X is a"):
        TransferClassifier("tiny").fit(X, [0, 1])


def test_fit_takes_an_iterator(images):
    classifier = TransferClassifier("tiny").fit(iter(images[:6]), [0, 1] * 3)
    assert classifier.report_.n_samples == 6


@pytest.mark.parametrize("missing", [None, pd.NA, float("nan")])
def test_fit_missing_labels_are_named(missing, images):
    y = np.array(["a", missing] * (len(images) // 2), dtype=object)
    with pytest.raises(InputError, match=r"missing labels \(rows \[1, 3"):
        TransferClassifier("tiny").fit(images, y)


@pytest.mark.parametrize(
    ("head", "weights", "message"),
    [
        ("knn", np.ones(8), "the head KNeighborsClassifier takes no weights"),
        (
            GridSearchCV(LogisticRegression(), {"C": [1]}, scoring="f1"),
            np.ones(8),
            "the head GridSearchCV takes no weights, and no estimator inside it does",
        ),
        ("logistic", np.ones(5), r"sample_weight.shape == \(5,\), expected \(8,\)"),
    ],
)
def test_fit_bad_weights_raise_early(head, weights, message, images):
    with pytest.raises(InputError, match=message):
        TransferClassifier("tiny", head).fit(images[:8], [0, 1] * 4, sample_weight=weights)
    assert EmbeddingCache().info()["n_rows"] == 0


@pytest.mark.filterwarnings("ignore::featx.exceptions.BadSampleWarning")
def test_score_on_error_nan_checks_lengths(with_bad_file):
    paths, labels = with_bad_file
    classifier = TransferClassifier(FeatureExtractor("tiny", on_error="nan")).fit(paths, labels)
    with pytest.raises(InputError, match="X has 12 samples and y has 11"):
        classifier.score(paths, labels[:-1])
    with pytest.raises(InputError, match=r"sample_weight.shape == \(11,\), expected \(12,\)"):
        classifier.score(paths, labels, sample_weight=np.ones(11))
