"""The tools of scikit-learn take featx's estimators as their own, on images and paths of images."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.fixes import parse_version

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, TransferRegressor
from featx.exceptions import FeatxError

N_SAMPLES = 60


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def extractor(cache):
    return FeatureExtractor("tiny", cache=cache)


@pytest.fixture
def classifier(extractor):
    return TransferClassifier(extractor)


@pytest.fixture(scope="module")
def digits():
    """Images (60, 8, 8) of three handwritten digits, and their labels."""
    images, labels = load_digits(n_class=3, return_X_y=True)
    return (images[:N_SAMPLES].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[:N_SAMPLES]


@pytest.fixture(scope="module")
def paths(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    paths = [str(folder / f"{number}.png") for number in range(N_SAMPLES)]
    for path, image in zip(paths, digits[0], strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(params=["arrays", "paths", "array of paths", "frame of paths"])
def X(request, digits, paths):  # noqa: N802
    kinds = {
        "arrays": digits[0],
        "paths": paths,
        "array of paths": np.array(paths),
        "frame of paths": pd.DataFrame({"image": paths}),
    }
    return kinds[request.param]


@pytest.fixture
def y(digits):
    return digits[1]


def as_it_is(X):
    return X


TOOLS = {
    "pipeline": lambda own: make_pipeline(own.extractor, StandardScaler(), LogisticRegression()),
    "pipeline, in the middle": lambda own: make_pipeline(
        FunctionTransformer(as_it_is), own.extractor, LogisticRegression()
    ),
    "pipeline, last": lambda own: make_pipeline(FunctionTransformer(as_it_is), own),
    "union": lambda own: make_pipeline(
        FeatureUnion([("mean", own.extractor), ("max", FeatureExtractor("tiny", pooling="max"))]),
        LogisticRegression(max_iter=1000),
    ),
    "grid": lambda own: GridSearchCV(own, {"head__C": [0.1, 1]}, cv=2),
    "random": lambda own: RandomizedSearchCV(
        own, {"head__C": [0.1, 1, 10]}, n_iter=2, cv=2, random_state=0
    ),
    "halving": lambda own: HalvingGridSearchCV(
        own, {"head__C": [0.1, 1, 10]}, cv=2, random_state=0
    ),
    "calibrated": lambda own: CalibratedClassifierCV(own, cv=2),
    "stacking": lambda own: StackingClassifier(
        [("linear", own), ("neighbors", TransferClassifier(own.extractor, "knn"))], cv=2
    ),
    "voting": lambda own: VotingClassifier(
        [("linear", own), ("neighbors", TransferClassifier(own.extractor, "knn"))], voting="soft"
    ),
    "one against the rest": OneVsRestClassifier,
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_tool_fits_and_predicts(tool, classifier, X, y):
    fitted = tool(classifier).fit(X, y)
    assert fitted.score(X, y) > 0.9
    assert fitted.predict(X[:3]).shape == (3,)


def test_self_training_labels_what_has_no_label(extractor, X, y):
    few = np.where(np.arange(N_SAMPLES) < 20, y, -1)
    model = make_pipeline(extractor, SelfTrainingClassifier(LogisticRegression(max_iter=1000)))
    fitted = model.fit(X, few)
    assert fitted.score(X, y) > 0.9
    assert (fitted[-1].labeled_iter_ > 0).any()


FORMS = {
    "array": lambda images, paths: images,
    "list": lambda images, paths: list(paths),
    "paths": lambda images, paths: np.array(paths),
    "column": lambda images, paths: np.array(paths)[:, np.newaxis],
    "frame": lambda images, paths: pd.DataFrame({"image": paths}),
}
# The forms of X that each ensemble passes on, as in the README.
TAKES = {
    "bagging": (lambda own: BaggingClassifier(own, 2, random_state=0), {"column", "frame"}),
    "boosting": (
        lambda own: AdaBoostClassifier(own, n_estimators=2),
        {"array", "column", "frame"},
    ),
    "one against one": (OneVsOneClassifier, set()),
    "self-training": (SelfTrainingClassifier, set()),
    "one against the rest": (OneVsRestClassifier, set(FORMS)),
    "voting": (lambda own: VotingClassifier([("own", own)]), set(FORMS)),
    "stacking": (lambda own: StackingClassifier([("own", own)], cv=2), set(FORMS)),
    "calibrated": (lambda own: CalibratedClassifierCV(own, cv=2), set(FORMS)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ensemble", TAKES)
def test_ensemble_takes_the_forms_in_guide(ensemble, form, classifier, digits, paths, y):
    make, taken = TAKES[ensemble]
    X = FORMS[form](digits[0], paths)
    if form in taken:
        assert make(classifier).fit(X, y).score(X, y) > 0.9
        return
    if form == "frame" and parse_version(sklearn.__version__) < parse_version("1.8"):
        pytest.skip("scikit-learn 1.7 passes frames on")
    with pytest.raises(ValueError, match=r"dim|2D array|string") as caught:
        make(classifier).fit(X, y)
    assert not isinstance(caught.value, FeatxError)  # scikit-learn looks at X by itself


@pytest.mark.parametrize("form", FORMS)
def test_one_against_one_takes_embeddings(form, extractor, digits, paths, y):
    X = FORMS[form](digits[0], paths)
    model = make_pipeline(extractor, OneVsOneClassifier(LogisticRegression(max_iter=1000)))
    assert model.fit(X, y).score(X, y) > 0.9


def test_threshold_is_tuned(classifier, X, y):
    fitted = TunedThresholdClassifierCV(classifier, cv=2).fit(X, y == 1)
    assert fitted.score(X, y == 1) > 0.9


def test_frozen_estimator_is_calibrated(classifier, X, y):
    frozen = FrozenEstimator(classifier.fit(X, y))
    assert CalibratedClassifierCV(frozen).fit(X, y).score(X, y) > 0.9


def test_functions_of_model_selection(classifier, X, y):
    groups = np.arange(N_SAMPLES) // 4
    folds = StratifiedGroupKFold(3)
    scores = cross_validate(classifier, X, y, cv=folds, groups=groups, return_train_score=True)
    assert scores["test_score"].mean() > 0.8
    assert cross_val_predict(classifier, X, y, cv=3, method="predict_proba").shape == (60, 3)
    _, train, _ = learning_curve(classifier, X, y, train_sizes=[0.5, 1.0], cv=2)
    assert train.shape == (2, 2)
    train, _ = validation_curve(classifier, X, y, param_name="head__C", param_range=[0.1, 1], cv=2)
    assert train.shape == (2, 2)
    score, _, p = permutation_test_score(classifier, X, y, cv=2, n_permutations=5, random_state=0)
    assert score > 0.8
    assert p < 0.2


def test_several_outputs(extractor, X, y):
    targets = np.c_[y == 0, y == 1].astype(int)
    fitted = MultiOutputClassifier(TransferClassifier(extractor)).fit(X, targets)
    assert (fitted.predict(X) == targets).mean() > 0.9


def test_target_is_transformed(extractor, X, y):
    regressor = TransformedTargetRegressor(
        TransferRegressor(extractor), func=np.log1p, inverse_func=np.expm1
    )
    assert regressor.fit(X, y + 1.0).score(X, y + 1.0) > 0.8


def test_images_beside_numbers_and_categories(extractor, paths, y):
    frame = pd.DataFrame({"image": paths, "weight": np.arange(60.0), "color": ["red", "blue"] * 30})
    columns = ColumnTransformer(
        [
            ("image", extractor, ["image"]),
            ("weight", StandardScaler(), ["weight"]),
            ("color", OneHotEncoder(), ["color"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, y)
    assert model.score(frame, y) > 0.9
    importance = permutation_importance(model, frame, y, n_repeats=3, random_state=0)
    assert importance.importances_mean.argmax() == 0
    names = columns.get_feature_names_out()
    assert names[0].startswith("image__tiny_avg_")
    assert names[-3:].tolist() == ["weight__weight", "color__color_blue", "color__color_red"]


def test_weights_and_groups_through_metadata_routing(extractor, X, y):
    with config_context(enable_metadata_routing=True):
        classifier = TransferClassifier(extractor).set_fit_request(sample_weight=True, groups=False)
        classifier.set_score_request(sample_weight=True)
        weights = np.ones(N_SAMPLES)
        folds = StratifiedGroupKFold(3)
        scores = cross_validate(
            classifier,
            X,
            y,
            cv=folds,
            params={"sample_weight": weights, "groups": np.arange(N_SAMPLES) // 4},
        )
    assert scores["test_score"].mean() > 0.8


@pytest.mark.parametrize("how", ["pandas", "polars"])
def test_set_output_makes_embeddings_frames(how, extractor, classifier, X, y):
    pytest.importorskip(how)
    frame = extractor.set_output(transform=how).fit_transform(X)
    assert next(iter(frame.columns)) == "tiny_avg_0"
    frame = classifier.set_output(transform=how).fit(X, y).transform(X)
    assert list(frame.columns)[-1] == f"tiny_avg_{frame.shape[1] - 1}"


@pytest.mark.parametrize("head", ["ridge", Ridge()], ids=str)
def test_regressor_learns_numbers(head, extractor, X, y):
    assert TransferRegressor(extractor, head).fit(X, y).score(X, y) > 0.8
