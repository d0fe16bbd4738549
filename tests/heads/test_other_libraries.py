"""Heads of other libraries are fitted, set, searched and saved as scikit-learn's are."""

import keras
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import (
    FeatureExtractor,
    FineTune,
    TransferClassifier,
    TransferRegressor,
    compare_heads,
    load,
    save,
)
from featx.exceptions import InputError, ParameterError, UntrustedTypesError
from featx.heads.named import head_for_labels

N = 45
INDICES = np.arange(N) % 3
LABELS = {
    "indices": INDICES,
    "words": np.array(["ant", "bee", "cat"])[INDICES],
    "ids": np.array([2**62, 2**62 + 1, 7])[INDICES],
    "booleans": INDICES == 1,
    "floats": INDICES * 1.0,
    "negative": INDICES - 1,
}


def catboost(**params):
    library = pytest.importorskip("catboost")
    params = {"iterations": 5, "verbose": 0, "thread_count": 1, **params}
    return library.CatBoostClassifier(allow_writing_files=False, **params)


def lightgbm(**params):
    library = pytest.importorskip("lightgbm")
    params = {"n_estimators": 5, "verbose": -1, "n_jobs": 1, "min_child_samples": 2, **params}
    return library.LGBMClassifier(**params)


def xgboost(**params):
    library = pytest.importorskip("xgboost")
    return library.XGBClassifier(**{"n_estimators": 5, "n_jobs": 1, **params})


LIBRARIES = {
    "catboost": (catboost, "depth", 2),
    "lightgbm": (lightgbm, "feature_fraction", 0.5),
    "xgboost": (lambda: xgboost(booster="dart"), "rate_drop", 0.5),
}
libraries = pytest.mark.parametrize("library", LIBRARIES)


class Stubborn(ClassifierMixin, BaseEstimator):
    """A head that predicts a column, takes keywords, changes its input and is set before fit only.

    Its ``get_params`` returns what was set, as CatBoost's does.
    """

    def __init__(self, **params):
        self.params = params

    def get_params(self, deep=True):
        return dict(self.params)

    def set_params(self, **params):
        if hasattr(self, "means_"):
            raise RuntimeError("You can't change params of fitted model.")
        self.params |= params
        return self

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.array([X[y == label].mean(axis=0) for label in self.classes_])
        X[:] = 0
        return self

    def predict(self, X):
        distances = ((X[:, np.newaxis] - self.means_) ** 2).sum(axis=2)
        return self.classes_[distances.argmin(axis=1)][:, np.newaxis]


class Merging(Stubborn):
    """A head that compares integers as floats."""

    def fit(self, X, y):
        return super().fit(X, y.astype(np.float64))


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, 6)) + 6 * np.eye(6)[INDICES]).astype(np.float32)


@pytest.fixture
def extractor():
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(6, kernel_initializer=keras.initializers.Identity())(inputs)
    return FeatureExtractor(keras.Model(inputs, outputs), cache=None)


@pytest.mark.parametrize("kind", LABELS)
@libraries
def test_library_head_predicts_labels_as_given(library, kind, extractor, vectors):
    y = LABELS[kind]
    classifier = TransferClassifier(extractor, LIBRARIES[library][0](), random_state=0)
    predicted = classifier.fit(vectors, y).predict(vectors)
    assert predicted.shape == (N,)
    assert np.mean(predicted == y) > 0.9
    assert classifier.classes_.tolist() == np.unique(y).tolist()
    assert predicted.dtype.kind in {y.dtype.kind, "O"}
    assert classifier.predict_proba(vectors).shape == (N, len(np.unique(y)))


@libraries
def test_library_head_predicts_several_outputs(library, extractor, vectors):
    y = np.column_stack([LABELS["words"], LABELS["words"][::-1]])
    classifier = TransferClassifier(extractor, LIBRARIES[library][0]()).fit(vectors, y)
    assert classifier.score(vectors, y) > 0.9
    indicators = INDICES[:, np.newaxis] == [0, 1]
    classifier.fit(vectors, indicators.astype(int))
    assert classifier.predict(vectors).shape == (N, 2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda head: make_pipeline(StandardScaler(), head),
        lambda head: GridSearchCV(head, {"max_depth": [1, 2]}, cv=2),
    ],
    ids=["pipeline", "search"],
)
def test_xgboost_inside_takes_words(wrap, extractor, vectors):
    classifier = TransferClassifier(extractor, wrap(xgboost())).fit(vectors, LABELS["words"])
    assert classifier.score(vectors, LABELS["words"]) > 0.9


@libraries
def test_library_keyword_is_set_cloned_and_searched(library, extractor, vectors):
    make, name, value = LIBRARIES[library]
    search = GridSearchCV(TransferClassifier(extractor, make()), {f"head__{name}": [value]}, cv=2)
    best = search.fit(vectors, LABELS["words"]).best_estimator_
    assert clone(best).get_params()[f"head__{name}"] == value


def test_set_params_keyword_reaches_last_step(extractor):
    head = make_pipeline(StandardScaler(), lightgbm())
    classifier = TransferClassifier(extractor, head).set_params(head__feature_fraction=0.5)
    assert classifier.head[-1].get_params()["feature_fraction"] == 0.5


@libraries
def test_weights_reach_the_head_of_a_library(library, extractor, vectors):
    weights = np.where(INDICES == 0, 1.0, 1e-6)
    classifier = TransferClassifier(extractor, LIBRARIES[library][0]())
    plain = classifier.fit(vectors, LABELS["words"]).predict_proba(vectors)[:, 0].mean()
    classifier.fit(vectors, LABELS["words"], sample_weight=weights)
    assert classifier.predict_proba(vectors)[:, 0].mean() > plain + 0.1


@libraries
def test_save_of_a_library_names_the_types(library, extractor, vectors, tmp_path):
    classifier = TransferClassifier(extractor, LIBRARIES[library][0]())
    classifier.fit(vectors, LABELS["words"])
    with pytest.raises(UntrustedTypesError, match=f"'{library}\\."):
        save(classifier, tmp_path / "model.featx")


@pytest.mark.parametrize(
    "library", ["catboost", "xgboost", pytest.param("lightgbm", marks=pytest.mark.long)]
)
def test_library_head_is_fine_tuned_and_compared(library, extractor, vectors):
    make, y = LIBRARIES[library][0], LABELS["words"]
    tuned = TransferClassifier(extractor, make(), FineTune(epochs=1), random_state=0)
    assert tuned.fit(vectors, y).report_.head_score > 0.6
    X = np.hstack([vectors, np.random.default_rng(1).normal(size=(N, 40))])
    assert compare_heads(X, y, heads=[make()], n_folds=3)[0].mean > 0.8


@pytest.mark.parametrize("library", ["catboost", "lightgbm", "xgboost"])
def test_library_regressor_predicts_one_dimension(library, extractor, vectors):
    name = {"catboost": "CatBoost", "lightgbm": "LGBM", "xgboost": "XGB"}[library]
    head = getattr(pytest.importorskip(library), f"{name}Regressor")()
    quiet = {"catboost": {"verbose": 0, "allow_writing_files": False}, "lightgbm": {"verbose": -1}}
    head.set_params(n_estimators=5, **quiet.get(library, {}))
    regressor = TransferRegressor(extractor, head).fit(vectors, vectors[:, 0])
    assert regressor.predict(vectors).shape == (N,)
    assert regressor.fit(vectors, vectors[:, :2]).predict(vectors).shape == (N, 2)


def test_catboost_with_class_weights_is_fitted(extractor, vectors):
    head = catboost(class_weights=[1, 2, 1])
    classifier = TransferClassifier(extractor, head).fit(vectors, LABELS["words"])
    assert classifier.score(vectors, LABELS["words"]) > 0.9


def test_stubborn_head_predicts_one_dimension(extractor, vectors):
    before = vectors.copy()
    classifier = TransferClassifier(extractor, Stubborn(), random_state=0)
    classifier.fit(vectors, LABELS["words"], groups=np.arange(N) % 5)
    assert classifier.predict(vectors).tolist() == LABELS["words"].tolist()
    assert classifier.score(vectors, LABELS["words"]) == 1
    np.testing.assert_array_equal(vectors, before)


def test_stubborn_head_is_fine_tuned_and_compared(extractor, vectors):
    y = LABELS["words"]
    tuned = TransferClassifier(extractor, Stubborn(), FineTune(epochs=1), random_state=0)
    assert tuned.fit(vectors, y).report_.head_score == 1
    X = np.hstack([vectors, np.random.default_rng(1).normal(size=(N, 40))])
    assert compare_heads(X, y, heads=[Stubborn()], n_folds=3)[0].mean > 0.9


def test_set_params_open_head_takes_its_keyword(extractor):
    classifier = TransferClassifier(extractor, Stubborn()).set_params(head__strength=3)
    assert clone(classifier).head.get_params() == {"strength": 3}
    with pytest.raises(ParameterError, match="Invalid parameter 'head__strength'"):
        TransferClassifier(extractor, LogisticRegression()).set_params(head__strength=3)
    with pytest.raises(ParameterError, match="Invalid parameter 'haed'"):
        classifier.set_params(haed=2, head__strength=4)
    assert classifier.head.get_params() == {"strength": 3}


def test_head_that_merges_labels_raises(extractor, vectors):
    with pytest.raises(InputError, match="has 2 classes after fit, but y has 3"):
        TransferClassifier(extractor, Merging()).fit(vectors, LABELS["ids"])


def test_for_labels_indices_stay_as_they_are():
    head = xgboost()
    assert head_for_labels(head, INDICES) is head
    assert head_for_labels(head, LABELS["words"]).estimators == [("xgbclassifier", head)]


def test_loaded_head_of_lightgbm_predicts_the_same(vectors, tmp_path):
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None), lightgbm())
    images = np.random.default_rng(0).integers(0, 256, (N, 64, 64, 3), dtype=np.uint8)
    images[::3] //= 4
    classifier.fit(images, LABELS["words"])
    trusted = ["lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
    trusted.append("collections.OrderedDict")
    save(classifier, tmp_path / "model.featx", trusted=trusted)
    loaded = load(tmp_path / "model.featx", trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))
