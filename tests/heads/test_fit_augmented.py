"""Heads on augmented views: trained on all, scored on whole samples, averaged."""

import keras
import numpy as np
import pytest
from sample_digits import first_digits
from sklearn.base import clone
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
from featx.exceptions import InputError, ParameterError
from featx.heads.fit import fit_on_views


@pytest.fixture(scope="module")
def digits():
    return first_digits(60, n_classes=3)


@pytest.fixture
def extractor(tmp_path):
    return FeatureExtractor("tiny", views=3, augment="standard", cache=tmp_path / "cache")


def test_fit_all_views_predict_their_mean(extractor, digits):
    images, labels = digits
    head = LogisticRegression(max_iter=2000)
    classifier = TransferClassifier(extractor, head).fit(images[:40], labels[:40])
    views = classifier.extractor_.transform_views(images).astype(np.float64)
    expected = clone(head).fit(views[:40].reshape(120, -1), np.repeat(labels[:40], 3))
    np.testing.assert_allclose(classifier.head_.coef_, expected.coef_, rtol=1e-6)
    scores = np.mean([expected.decision_function(views[:, n]) for n in range(3)], axis=0)
    np.testing.assert_allclose(classifier.decision_function(images), scores, rtol=1e-4, atol=1e-4)


def test_fit_weights_count_for_all_views(extractor, digits):
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
def test_fit_search_holds_out_whole_samples(head):
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
def test_fit_search_keeps_groups_together(cv):
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
def test_fit_head_that_splits_rows_raises(head, named, how, extractor, digits, tmp_path):
    groups = np.arange(60) // 2 if how == "groups" else None
    if how == "groups":
        extractor.set_params(views=1, augment=None)
    with pytest.raises(ParameterError, match=named):
        TransferClassifier(extractor, head).fit(*digits, groups=groups)
    assert EmbeddingCache(tmp_path / "cache").info()["n_rows"] == 0


def test_fit_inactive_early_stopping_is_accepted(extractor, digits):
    head = HistGradientBoostingClassifier(max_iter=2)
    classifier = TransferClassifier(extractor.set_params(views=2), head).fit(*digits)
    assert classifier.head_.n_iter_ == 2


@pytest.mark.parametrize("fine_tune", [None, FineTune(epochs=1)])
def test_fit_fewer_groups_than_folds_raises(fine_tune, digits, tmp_path):
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


@pytest.mark.filterwarnings("ignore::featx.exceptions.NearDuplicateWarning")
def test_compare_trains_on_all_views(extractor, digits):
    images, labels = digits
    *_, row = compare(images, labels, extractors=[extractor], heads=["lda"], n_folds=3)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_score(TransferClassifier(extractor, "lda"), images, labels, cv=folds)
    assert row.scores == pytest.approx(expected.tolist())


@pytest.mark.filterwarnings("ignore::featx.exceptions.ParameterWarning")
def test_search_may_try_no_views_at_all(extractor, digits):
    images, labels = digits
    search = GridSearchCV(
        TransferClassifier(extractor, "ridge"), {"extractor__views": [1, 2]}, cv=2
    ).fit(images, labels)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


@pytest.mark.parametrize("head", ["probe", KNNProbe(5), RidgeProbe([1.0])])
def test_fit_sorted_labels_are_stratified(head, extractor, digits):
    images, labels = digits
    order = np.argsort(labels, kind="stable")
    several = (labels[order, np.newaxis] == np.arange(3)).astype(int)
    classifier = TransferClassifier(extractor, head).fit(images[order], several)
    heads = getattr(classifier.head_, "estimators_", [classifier.head_])
    assert min(each.best_score_ for each in heads) > 0.85


def test_saved_search_keeps_its_own_cv(extractor, digits, tmp_path):
    search = GridSearchCV(RidgeClassifier(), {"alpha": [1.0, 10.0]}, cv=3)
    classifier = TransferClassifier(extractor, search).fit(*digits)
    trusted = ("sklearn.metrics._scorer._PassthroughScorer",)
    save(classifier, tmp_path / "model.featx", trusted=trusted)
    assert load(tmp_path / "model.featx", trusted=trusted).head_.cv == 3
