"""The parameters of the estimators: what they show, how they are set, which faults are found."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.exceptions import ParameterError
from featx.heads.named import check_head_params

IMAGES = np.zeros((4, 8, 8, 3), np.uint8)
LABELS = ["a", "b", "a", "b"]


def test_get_params_shows_what_names_stand_for():
    params = TransferClassifier("tiny", head="logistic").get_params()
    assert params["extractor__pooling"] == "auto"
    assert params["head__logisticregression__C"] == 1.0
    assert TransferClassifier("tiny").get_params(deep=False)["extractor"] == "tiny"


def test_get_params_accepts_an_unknown_head():
    estimator = TransferClassifier("tiny", head="logistisch")
    assert estimator.get_params()["head"] == "logistisch"
    assert not hasattr(estimator, "predict_proba")
    with pytest.raises(ParameterError, match="Did you mean 'logistic'"):
        estimator.fit(IMAGES, LABELS)


def test_set_params_reaches_named_parts():
    estimator = TransferClassifier("tiny", head="ridge", random_state=3)
    estimator.set_params(head__alpha=5, extractor__pooling="max", verbose=0)
    assert estimator.head[-1].alpha == 5
    assert estimator.extractor.pooling == "max"
    assert estimator.extractor.backbone == "tiny"
    assert estimator.random_state == 3


def test_set_params_head_and_its_parameter_together():
    estimator = TransferClassifier("tiny")
    estimator.set_params(head__C=7, head=LogisticRegression(), extractor="vgg16")
    assert isinstance(estimator.head, LogisticRegression)
    assert estimator.head.C == 7
    assert estimator.extractor == "vgg16"


def test_set_params_accepts_names_of_steps():
    estimator = TransferClassifier("tiny")
    estimator.set_params(head__logisticregression__C=5, head__standardscaler__with_mean=False)
    assert estimator.head[-1].C == 5
    assert estimator.head[0].with_mean is False
    assert estimator.set_params(head__C=6).head[-1].C == 6


def test_set_params_fine_tune_with_its_parameter():
    estimator = TransferClassifier("tiny")
    estimator.set_params(fine_tune__learning_rate=0.5, fine_tune=FineTune())
    assert estimator.fine_tune.learning_rate == 0.5


@pytest.mark.parametrize(
    ("estimator", "name", "message"),
    [
        (TransferClassifier("tiny"), "haed", "Did you mean 'head'"),
        (TransferClassifier("tiny"), "haed__C", "Did you mean 'head'"),
        (TransferClassifier("tiny"), "head__c", "Did you mean 'head__C'"),
        (TransferClassifier("tiny", "logistc"), "head__C", "Did you mean 'logistic'"),
        (TransferClassifier("tiny"), "extractor__pooing", "Did you mean 'extractor__pooling'"),
        (TransferClassifier("tiny"), "fine_tune__epochs", "while fine_tune=None"),
        (
            TransferRegressor("tiny", fine_tune=FineTune()),
            "fine_tune__learning_rat",
            "Did you mean 'fine_tune__learning_rate'",
        ),
        (FeatureExtractor("tiny"), "inputsize", "Did you mean 'input_size'"),
        (FineTune(), "epoch", "Did you mean 'epochs'"),
    ],
    ids=str,
)
def test_set_params_misspelled_name_sets_nothing(estimator, name, message):
    before = repr(estimator)
    with pytest.raises(ParameterError, match=message):
        estimator.set_params(**{name: 1})
    assert repr(estimator) == before


def test_set_params_lists_all_unknown_names():
    with pytest.raises(ParameterError, match=r"'haed'.*'extractor__bckbone'"):
        TransferClassifier("tiny").set_params(haed=1, extractor__bckbone=1, verbose=2)


def test_misspelled_name_in_a_search_is_corrected():
    search = GridSearchCV(TransferClassifier("tiny"), {"head__c": [1]}, cv=2)
    with pytest.raises(ParameterError, match="Did you mean 'head__C'"):
        search.fit(IMAGES, LABELS)
    pipeline = make_pipeline(FeatureExtractor("tiny"), LogisticRegression())
    with pytest.raises(ParameterError, match="Did you mean 'pooling'"):
        pipeline.set_params(featureextractor__poolig="max")


def test_fit_lists_faults_of_all_parts():
    extractor = FeatureExtractor("tinny", pooling="mean")
    estimator = TransferClassifier(extractor, "logistics", fine_tune=2, random_state="x")
    with pytest.raises(ParameterError, match="5 faulty parameters") as caught:
        estimator.fit(IMAGES, LABELS)
    names = [fault.name for fault in caught.value.faults]
    assert names == [
        "extractor__backbone",
        "extractor__pooling",
        "head",
        "random_state",
        "fine_tune",
    ]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LogisticRegression(C=-1), "'C' parameter of LogisticRegression"),
        (make_pipeline(StandardScaler(), LogisticRegression(C=-1)), "'C' parameter of Logistic"),
        (
            GridSearchCV(RandomForestClassifier(n_estimators="many"), {"max_depth": [1]}),
            "'n_estimators' parameter of RandomForestClassifier",
        ),
    ],
    ids=str,
)
def test_fit_faulty_head_raises_early(head, message):
    with pytest.raises(ParameterError, match=message):
        TransferClassifier("tiny", head).fit(IMAGES, LABELS)
    assert EmbeddingCache().info()["n_forward"] == 0


def test_fit_checks_a_changed_head_again():
    head = make_pipeline(StandardScaler(), LogisticRegression(C=1))
    check_head_params(head)
    with pytest.raises(ParameterError, match="'C' parameter"):
        check_head_params(head.set_params(logisticregression__C=0))
    check_head_params(LogisticRegression(fit_intercept=True))
    with pytest.raises(ParameterError, match="'fit_intercept' parameter"):
        check_head_params(LogisticRegression(fit_intercept=1))
    with pytest.raises(ParameterError, match="'with_mean' parameter"):
        check_head_params(make_pipeline(StandardScaler(with_mean="no"), LogisticRegression(C=1)))


def test_fit_checks_an_unchecked_head_later():
    head = LogisticRegression(C=-7)
    with config_context(skip_parameter_validation=True):
        check_head_params(head)
    with pytest.raises(ParameterError, match="'C' parameter"):
        check_head_params(head)


def test_fit_head_without_get_params_is_refused():
    class Mine:
        def fit(self, X, y):
            return self

        def predict(self, X):
            return X

    with pytest.raises(ParameterError, match="predict and get_params"):
        TransferClassifier("tiny", Mine()).fit(IMAGES, LABELS)


def test_get_params_of_subclass_has_its_own():
    class Mine(FeatureExtractor):
        def __init__(self, backbone="tiny", *, size=3):
            super().__init__(backbone)
            self.size = size

    assert Mine(size=4).get_params() == {"backbone": "tiny", "size": 4}
    assert Mine().set_params(size=5).size == 5
    assert "size" not in FeatureExtractor("tiny").get_params()
