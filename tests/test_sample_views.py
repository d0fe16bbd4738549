"""Several views of each sample: embedded once each, trained on together, averaged."""

import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import (
    LogisticRegression,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    KNNProbe,
    LinearProbe,
    RidgeProbe,
    TransferClassifier,
    TransferRegressor,
    load,
    save,
)
from featx.evaluation.comparison import compare
from featx.exceptions import BadSampleWarning, InputError, ParameterError, ParameterWarning
from featx.heads.views import fit_on_views


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(labels < 3)[:60]
    return (pixels[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[chosen]


@pytest.fixture
def extractor(tmp_path):
    return FeatureExtractor("tiny", views=3, augment="standard", cache=tmp_path / "cache")


def test_transform_views_each_view_is_embedded_once(extractor, digits):
    images, _ = digits
    views = extractor.fit(images).transform_views(images)
    assert views.shape == (60, 3, 400)
    report = extractor.report_
    assert (report.n_samples, report.n_forward, report.n_hits) == (60, 180, 0)
    np.testing.assert_array_equal(extractor.transform_views(images), views)
    assert (extractor.report_.n_forward, extractor.report_.n_hits) == (0, 180)


def test_transform_views_the_first_is_the_sample_itself_and_shares_its_row(extractor, digits):
    images, _ = digits
    plain = clone(extractor).set_params(views=1, augment=None)
    expected = plain.fit_transform(images)
    views = extractor.fit(images).transform_views(images)
    np.testing.assert_array_equal(views[:, 0], expected)
    assert (extractor.report_.n_hits, extractor.report_.n_forward) == (60, 120)
    assert all(not np.allclose(views[:, number], expected) for number in (1, 2))


def test_transform_views_more_of_them_leave_the_others_as_they_are(extractor, digits):
    images, _ = digits
    two = clone(extractor).set_params(views=2).fit(images).transform_views(images)
    three = extractor.fit(images).transform_views(images)
    np.testing.assert_array_equal(three[:, :2], two)
    assert extractor.report_.n_forward == 60


def test_transform_is_the_mean_of_views_whatever_else_is_in_the_batch(extractor, digits):
    images, _ = digits
    views = extractor.fit(images).transform_views(images)
    np.testing.assert_allclose(extractor.transform(images), views.mean(axis=1), rtol=1e-5)
    out = np.empty((5, 400), np.float32)
    assert extractor.transform(images[40:45], out=out) is out
    np.testing.assert_allclose(out, views[40:45].mean(axis=1), rtol=1e-5)


def test_transform_views_without_cache_and_pooling_have_the_shape_of_activations(digits):
    images, _ = digits
    extractor = FeatureExtractor(
        "tiny", layer="stage3", cache=None, pooling=None, views=2, augment="standard"
    )
    extractor.fit(images)
    shape = extractor.feature_shape_
    assert len(shape) == 3
    assert extractor.transform_views(images[:4]).shape == (4, 2, *shape)
    assert extractor.transform(images[:4]).shape == (4, *shape)


def test_transform_views_of_what_cannot_be_read_are_nan(extractor, digits, tmp_path):
    images, _ = digits
    extractor.set_params(on_error="nan")
    samples = [*images[:3], b"no image"]
    with pytest.warns(BadSampleWarning, match="1 of 4 samples"):
        views = extractor.fit(samples).transform_views(samples)
    assert np.isnan(views).all(axis=(1, 2)).tolist() == [False, False, False, True]


def test_own_layers_are_copied_and_part_of_the_identity(digits, tmp_path):
    images, _ = digits

    def n_forward(layer):
        extractor = FeatureExtractor("tiny", cache=tmp_path, views=2, augment=layer)
        extractor.fit_transform(images)
        return extractor.report_.n_forward

    flip = keras.layers.RandomFlip("horizontal", seed=1)
    assert n_forward(flip) == 120
    assert n_forward(keras.layers.RandomFlip("horizontal", seed=2, name="other")) == 0
    assert n_forward([flip, keras.layers.RandomContrast(0.3)]) == 60


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"views": 2}, "views=2: expected 1 where nothing is augmented"),
        ({"views": 2, "augment": []}, r"augment=\[\]"),
        ({"views": 2, "augment": "mirror"}, "augment='mirror'"),
        ({"views": 2, "augment": lambda image: image}, "Keras layers"),
    ],
)
def test_fit_faulty_views_are_told(params, message, digits):
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor("tiny", **params).fit(digits[0])


def test_fit_layers_that_change_the_shape_are_told_before_the_pass(digits):
    crop = keras.layers.RandomCrop(8, 8)
    extractor = FeatureExtractor("tiny", views=2, augment=crop)
    with pytest.raises(ParameterError, match="keep their shape"):
        extractor.fit_transform(digits[0])
    assert not hasattr(extractor, "space_")
    assert EmbeddingCache().info()["n_rows"] == 0


def test_fit_images_are_changed_not_vectors():
    inputs = keras.Input((6,))
    backbone = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    X = np.random.default_rng(0).random((5, 6), np.float32)
    with pytest.raises(ParameterError, match=r"shape \(6,\)"):
        FeatureExtractor(backbone, views=2, augment="standard", cache=None).fit(X)
    noise = keras.layers.GaussianNoise(0.1, seed=0)
    extractor = FeatureExtractor(backbone, views=2, augment=noise, cache=None)
    assert extractor.fit(X).transform_views(X).shape == (5, 2, 3)


def test_warm_fit_with_views_imports_no_tensorflow(digits, tmp_path):
    np.save(tmp_path / "images.npy", digits[0])
    code = f"""
import sys
import numpy as np
from featx import FeatureExtractor
images = np.load({str(tmp_path / "images.npy")!r})
extractor = FeatureExtractor("tiny", views=2, augment="standard", cache={str(tmp_path / "c")!r})
extractor.fit_transform(images)
print(extractor.report_.n_forward, "keras" in sys.modules)
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert told == [["120", "True"], ["0", "False"]]


def test_head_is_trained_on_all_views_and_predicts_from_their_mean(extractor, digits):
    images, labels = digits
    head = LogisticRegression(max_iter=2000)
    classifier = TransferClassifier(extractor, head).fit(images[:40], labels[:40])
    views = classifier.extractor_.transform_views(images).astype(np.float64)
    expected = clone(head).fit(views[:40].reshape(120, -1), np.repeat(labels[:40], 3))
    np.testing.assert_allclose(classifier.head_.coef_, expected.coef_, rtol=1e-6)
    scores = np.mean([expected.decision_function(views[:, n]) for n in range(3)], axis=0)
    np.testing.assert_allclose(classifier.decision_function(images), scores, rtol=1e-4, atol=1e-4)


def test_weights_of_samples_are_those_of_all_their_views(extractor, digits):
    images, labels = digits
    weights = np.where(np.arange(60) < 40, 1.0, 0.0)
    weighted = TransferClassifier(extractor, "ridge").fit(images, labels, sample_weight=weights)
    fewer = TransferClassifier(extractor, "ridge").fit(images[:40], labels[:40])
    np.testing.assert_allclose(
        weighted.decision_function(images), fewer.decision_function(images), rtol=1e-4, atol=1e-5
    )


def test_partial_fit_and_regression_take_all_views(extractor, digits):
    images, labels = digits
    classifier = TransferClassifier(extractor, SGDClassifier(random_state=0))
    classifier.partial_fit(images, labels, classes=[0, 1, 2])
    assert classifier.head_.t_ == 181
    regressor = TransferRegressor(extractor, "ridge").fit(images, labels)
    views = regressor.extractor_.transform_views(images)
    assert regressor.head_[0].n_samples_seen_ == views.shape[0] * views.shape[1]


@pytest.mark.parametrize(
    "head",
    [
        LinearProbe([0.01, 1.0], cv=3),
        RidgeProbe([1.0, 100.0], cv=3),
        RidgeClassifierCV([1.0, 100.0], cv=3),
        GridSearchCV(RidgeClassifier(), {"alpha": [1.0, 100.0]}, cv=3),
        make_pipeline(
            StandardScaler(), GridSearchCV(RidgeClassifier(), {"alpha": [1.0, 1e2]}, cv=3)
        ),
    ],
    ids=lambda head: type(head).__name__,
)
def test_heads_that_cross_validate_hold_out_whole_samples(head):
    # Two views of a sample are equal, and labels follow nothing: whoever has seen one view of a
    # sample knows the label of the other.
    rng = np.random.default_rng(0)
    views = np.repeat(rng.standard_normal((60, 1, 200)), 2, axis=1).astype(np.float32)
    labels = rng.integers(0, 2, 60)
    fitted = clone(head)
    fit_on_views(fitted, views, labels, sample_weight=None, groups=None)
    last = fitted[-1] if hasattr(fitted, "steps") else fitted
    assert last.best_score_ < 0.75
    assert fitted.get_params().keys() == head.get_params().keys()
    cv = [value for name, value in fitted.get_params().items() if name.rpartition("__")[2] == "cv"]
    assert cv == [3]


@pytest.mark.parametrize("cv", [None, 4, np.int64(4), GroupKFold(4)])
def test_groups_stay_together_in_heads_that_cross_validate(cv):
    rng = np.random.default_rng(0)
    groups = np.tile(np.arange(20), 3)
    of_group = rng.integers(0, 2, 20)
    views = rng.standard_normal((20, 1, 200)).astype(np.float32)[groups]
    probe = LinearProbe([0.01, 1.0], cv=cv)
    fit_on_views(probe, views, of_group[groups], sample_weight=None, groups=groups)
    assert probe.best_score_ < 0.8
    fit_on_views(probe.set_params(cv=4), views, of_group[groups], sample_weight=None, groups=None)
    assert probe.best_score_ == 1.0


@pytest.mark.parametrize("how", ["views", "groups"])
@pytest.mark.parametrize(
    ("head", "named"),
    [
        (MLPClassifier(early_stopping=True), "early_stopping=True"),
        (GradientBoostingClassifier(n_iter_no_change=3), "n_iter_no_change=3"),
        (make_pipeline(StandardScaler(), MLPClassifier(early_stopping=True)), "mlpclassifier__e"),
        (SelfTrainingClassifier(RidgeClassifierCV(cv=3)), "estimator__cv=3"),
    ],
    ids=["early stopping", "boosting", "pipeline", "cv inside"],
)
def test_heads_that_would_part_views_or_groups_are_refused_before_the_pass(
    head, named, how, extractor, digits, tmp_path
):
    groups = np.arange(60) // 2 if how == "groups" else None
    if how == "groups":
        extractor.set_params(views=1, augment=None)
    with pytest.raises(ParameterError, match=named):
        TransferClassifier(extractor, head).fit(*digits, groups=groups)
    assert EmbeddingCache(tmp_path / "cache").info()["n_rows"] == 0


def test_heads_whose_early_stopping_is_off_for_so_few_rows_are_taken(extractor, digits):
    head = HistGradientBoostingClassifier(max_iter=2)
    classifier = TransferClassifier(extractor.set_params(views=2), head).fit(*digits)
    assert classifier.head_.n_iter_ == 2


@pytest.mark.parametrize("fine_tune", [None, FineTune(epochs=1)])
def test_fewer_groups_than_folds_are_told_before_the_pass(fine_tune, digits, tmp_path):
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    classifier = TransferClassifier(extractor, "probe", fine_tune)
    with pytest.raises(
        InputError, match=r"head__cv .* 5 folds need as many groups, but there are 4"
    ):
        classifier.fit(*digits, groups=np.arange(60) % 4)
    assert EmbeddingCache(tmp_path).info()["n_rows"] == 0


def test_fine_tuning_has_views_of_its_own(extractor, digits):
    with pytest.raises(ParameterError, match="extractor__views=3"):
        TransferClassifier(extractor, fine_tune=FineTune()).fit(*digits)
    with pytest.raises(ParameterError, match="extractor__augment='standard': expected None"):
        TransferClassifier(extractor.set_params(views=1), fine_tune=FineTune()).fit(*digits)


def test_cross_validation_and_search_see_samples(extractor, digits):
    images, labels = digits
    scores = cross_val_score(TransferClassifier(extractor, "lda"), images, labels, cv=3)
    assert scores.min() > 0.8
    search = GridSearchCV(
        TransferClassifier(extractor, "ridge"), {"extractor__views": [2, 3]}, cv=3
    ).fit(images, labels)
    assert search.best_estimator_.report_.n_forward == 0


@pytest.mark.parametrize("augment", ["standard", "layers"])
def test_saved_estimator_predicts_the_same(augment, extractor, digits, tmp_path):
    images, labels = digits
    layers = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomContrast(0.2)]
    extractor.set_params(augment=layers if augment == "layers" else augment)
    classifier = TransferClassifier(extractor, "ridge").fit(images, labels)
    save(classifier, tmp_path / "model.featx")
    again = load(tmp_path / "model.featx", cache=tmp_path / "cache")
    np.testing.assert_allclose(
        again.decision_function(images), classifier.decision_function(images), rtol=1e-5
    )
    assert again.extractor_.views == 3
    assert again.extractor_.report_.n_forward == 0


def test_versions_leave_the_random_numbers_of_the_caller_alone(extractor, digits):
    random.seed(0)
    expected = random.random()
    random.seed(0)
    extractor.fit(digits[0]).transform_views(digits[0])
    assert random.random() == expected


def test_compare_trains_on_all_views_as_the_estimators_do(extractor, digits):
    images, labels = digits
    (row,) = compare(images, labels, extractors=[extractor], heads=["lda"], n_folds=3)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_score(TransferClassifier(extractor, "lda"), images, labels, cv=folds)
    assert row.scores == pytest.approx(expected.tolist())


def test_transform_a_large_number_of_samples_comes_in_parts(extractor, digits, monkeypatch):
    images, _ = digits
    expected = extractor.fit(images).transform_views(images)
    monkeypatch.setattr("featx.forward.views._ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(extractor.transform_views(images), expected)
    np.testing.assert_allclose(extractor.transform(images), expected.mean(axis=1), rtol=1e-5)
    report = extractor.report_
    assert (report.n_samples, report.n_hits) == (60, 180)


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_fit_augment_without_views_warns_once(method, extractor, digits):
    with pytest.warns(
        ParameterWarning, match="augment='standard' is not used with views=1"
    ) as told:
        getattr(extractor.set_params(views=1), method)(digits[0])
    assert len(told) == 1


def test_transform_after_views_were_set_to_one_is_silent(extractor, digits):
    embeddings = extractor.fit(digits[0]).set_params(views=1).transform(digits[0])
    np.testing.assert_array_equal(embeddings, extractor.transform_views(digits[0])[:, 0])


def test_versions_follow_from_pixels_however_they_are_passed(extractor, digits, tmp_path):
    images, _ = digits
    paths = []
    for number, image in enumerate(images[:3]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image).save(paths[-1])
    expected = extractor.fit(paths).transform_views(paths)
    in_colour = np.repeat(images[:3, :, :, np.newaxis], 3, axis=3)
    for same in (images[:3], in_colour, [Path(path).read_bytes() for path in paths]):
        np.testing.assert_allclose(extractor.transform_views(same), expected, atol=1e-5)


def test_layers_whose_random_numbers_follow_from_no_seed_are_refused(digits):
    class Noise(keras.layers.Layer):
        def call(self, inputs, training=False):
            return inputs + keras.random.normal(keras.ops.shape(inputs)) if training else inputs

    with pytest.raises(ParameterError, match="do not follow from a seed"):
        FeatureExtractor("tiny", views=2, augment=Noise(), cache=None).fit(digits[0])


def test_stored_rows_of_several_views_are_verified(extractor, digits, tmp_path):
    images, _ = digits
    extractor.fit_transform(images)
    found = EmbeddingCache(tmp_path / "cache").verify(sample=5, extractor=extractor, X=images)
    assert found["differing"] == []
    view = EmbeddingCache(tmp_path / "cache").open(X=images)
    np.testing.assert_array_equal(view[:5], extractor.transform_views(images)[:5, 0])


@pytest.mark.filterwarnings("ignore::featx.exceptions.ParameterWarning")
def test_search_may_try_no_views_at_all(extractor, digits):
    images, labels = digits
    search = GridSearchCV(
        TransferClassifier(extractor, "ridge"), {"extractor__views": [1, 2]}, cv=2
    ).fit(images, labels)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


@pytest.mark.parametrize("head", ["probe", KNNProbe(5), RidgeProbe([1.0])])
def test_several_labels_in_the_order_of_folders_are_held_out_by_kind(head, extractor, digits):
    images, labels = digits
    order = np.argsort(labels, kind="stable")
    several = (labels[order, np.newaxis] == np.arange(3)).astype(int)
    classifier = TransferClassifier(extractor, head).fit(images[order], several)
    heads = getattr(classifier.head_, "estimators_", [classifier.head_])
    assert min(each.best_score_ for each in heads) > 0.85


def test_saved_search_that_was_fitted_on_views_is_trusted_as_another(extractor, digits, tmp_path):
    search = GridSearchCV(RidgeClassifier(), {"alpha": [1.0, 10.0]}, cv=3)
    classifier = TransferClassifier(extractor, search).fit(*digits)
    trusted = ("sklearn.metrics._scorer._PassthroughScorer",)
    save(classifier, tmp_path / "model.featx", trusted=trusted)
    assert load(tmp_path / "model.featx", trusted=trusted).head_.cv == 3
