"""The data of a report: what it says of estimators, folds, test samples and several outputs."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.evaluation.intervals import wilson_interval
from featx.exceptions import BadSampleWarning, InputError, ParameterError
from featx.reporting.advice import N_LISTED, n_first_suspects
from featx.reporting.report import Report, report


@pytest.fixture(scope="module")
def images():
    """Forty-five images of three brightnesses, with noise: some are hard."""
    rng = np.random.default_rng(0)
    level = np.repeat([60, 100, 140], 15)[:, np.newaxis, np.newaxis, np.newaxis]
    offset = rng.normal(0, 22, (45, 1, 1, 1))
    return (level + offset + rng.normal(0, 8, (45, 24, 24, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.repeat(["dark", "grey", "light"], 15)


@pytest.fixture
def classifier():
    return TransferClassifier(FeatureExtractor("tiny", cache=None), "logistic")


@pytest.fixture(scope="module")
def found(images, labels):
    """Return the report of the classifier in three folds."""
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None), "logistic")
    return report(classifier, images, labels, cv=3)


def test_report_agrees_with_scikit_learn(found, classifier, images, labels):
    data = found.to_dict()
    folds = found._describer.held_out.fold
    embeddings = classifier.extractor.fit_transform(images).astype(np.float64)
    split = [(np.flatnonzero(folds != n), np.flatnonzero(folds == n)) for n in range(3)]
    expected = cross_val_predict(classifier.new_head(), embeddings, labels, cv=split)
    assert data["metrics"]["accuracy"] == pytest.approx(np.mean(expected == labels))
    assert 0 < data["n_mistakes"] == int(np.sum(expected != labels))
    assert {entry["row"] for entry in data["mistakes"]} == set(np.flatnonzero(expected != labels))
    assert all(entry["label"] == labels[entry["row"]] for entry in data["mistakes"])
    assert all(entry["predicted"] == expected[entry["row"]] for entry in data["mistakes"])
    assert sum(pair["n"] for pair in data["confused"]) == data["n_mistakes"]


def test_report_names_every_confused_pair(classifier, images):
    many = np.array([f"class {number:02}" for number in np.arange(45) // 3])
    data = report(classifier, images, many, cv=3).to_dict()
    assert len(data["confused"]) > 8
    assert sum(pair["n"] for pair in data["confused"]) == data["n_mistakes"]
    assert [bool(pair["examples"]) for pair in data["confused"][7:9]] == [True, False]
    weakest = next(a for a in data["advice"] if a["step"].startswith("Collect more images of"))
    assert "most frequent mistake" in weakest["reason"]


def test_report_is_plain_data(found):
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["data"]["classes"] == {"dark": 15, "grey": 15, "light": 15}
    assert data["cost"]["n_forward"] == 45
    assert data["model"]["head"] == "logistic"
    assert "45 images of 3 classes" in found._repr_html_()


def test_to_dict_docstring_names_each_item(found):
    named = re.findall("``([a-z_]+)``", Report.to_dict.__doc__)
    assert sorted(named) == sorted(found.to_dict())


def test_report_mistakes_start_with_surest(found):
    losses = [entry["loss"] for entry in found.to_dict()["mistakes"]]
    assert losses == sorted(losses, reverse=True)


def test_report_pays_one_pass(images, labels, tmp_path):
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=tmp_path), "logistic")
    assert report(classifier, images, labels).to_dict()["cost"]["n_forward"] == 45
    again = report([classifier, TransferClassifier(classifier.extractor, "knn")], images, labels)
    assert again.to_dict()["cost"]["n_forward"] == 0


def test_report_estimator_is_unchanged(classifier, images, labels):
    before = dict(vars(classifier))
    report(classifier, images, labels)
    assert vars(classifier) == before


def test_report_groups_stay_in_one_fold(classifier, images, labels):
    groups = np.tile(np.arange(5), 9)
    found = report(classifier, images, labels, cv=3, groups=groups)
    folds = found._describer.held_out.fold
    assert all(len(set(folds[groups == group])) == 1 for group in range(5))
    assert found.to_dict()["data"]["n_groups"] == 5


def test_report_takes_splitters(classifier, images, labels):
    groups = np.tile(np.arange(5), 9)
    data = report(classifier, images, labels, cv=GroupKFold(5), groups=groups).to_dict()
    assert "5 folds" in data["split"]
    assert "GroupKFold" in data["split"]
    with pytest.raises(ParameterError, match="each sample exactly once"):
        report(classifier, images, labels, cv=ShuffleSplit(3))


def test_report_compares_on_same_folds(found, classifier, images, labels):
    knn = TransferClassifier(classifier.extractor, KNeighborsClassifier(1))
    data = report([classifier, knn], images, labels, cv=3).to_dict()
    first, second = data["comparison"]
    assert first["scores"] == data["fold_scores"] == found.to_dict()["fold_scores"]
    embeddings = classifier.extractor.fit_transform(images).astype(np.float64)
    folds = found._describer.held_out.fold
    split = [(np.flatnonzero(folds != n), np.flatnonzero(folds == n)) for n in range(3)]
    expected = cross_val_score(KNeighborsClassifier(1), embeddings, labels, cv=split)
    np.testing.assert_allclose(second["scores"], expected)
    assert second["name"].endswith("KNeighborsClassifier")
    assert 0 < second["p_value"] <= 1


def test_report_evaluates_fitted_estimator_as_is(classifier, images, labels):
    classifier.fit(images[::2], labels[::2])
    data = report(classifier, X_test=images[1::2], y_test=labels[1::2]).to_dict()
    assert data["metrics"]["accuracy"] == classifier.score(images[1::2], labels[1::2])
    assert data["data"]["n_read"] == 22
    assert data["learning_curve"] is None


def test_report_fits_unfitted_on_training_samples(classifier, images, labels):
    data = report(
        classifier, images[::2], labels[::2], X_test=images[1::2], y_test=labels[1::2]
    ).to_dict()
    fitted = classifier.fit(images[::2], labels[::2])
    assert data["metrics"]["accuracy"] == fitted.score(images[1::2], labels[1::2])


def test_report_finds_training_samples_among_test(classifier, images, labels):
    test = np.concatenate([images[1::2], images[:2]])
    data = report(
        classifier,
        images[::2],
        labels[::2],
        X_test=test,
        y_test=np.concatenate([labels[1::2], labels[:2]]),
    ).to_dict()
    assert data["duplicates"]["n_in_training"] == 1


def test_report_pipeline_equals_transfer_classifier(found, classifier, images, labels):
    pipeline = make_pipeline(classifier.extractor, *classifier.new_head())
    given = report(pipeline, images, labels, cv=3).to_dict()
    assert given["metrics"] == found.to_dict()["metrics"]


def test_report_head_without_probabilities(classifier, images, labels):
    classifier.set_params(head="svm")
    data = report(classifier, images, labels).to_dict()
    assert "calibration" not in data["metrics"]
    assert all("confidence" not in entry for entry in data["mistakes"])


def test_report_values(images):
    y = images.mean(axis=(1, 2, 3)) + np.random.default_rng(0).normal(0, 5, len(images))
    regressor = TransferRegressor(FeatureExtractor("tiny", cache=None))
    data = report(regressor, images, y).to_dict()
    low, high = data["metrics"]["intervals"]["r2"]
    assert low < data["metrics"]["r2"] < high
    assert data["metrics"]["mean_absolute_error"] < data["baselines"]["mean_absolute_error"]
    errors = [entry["loss"] for entry in data["mistakes"]]
    assert errors == sorted(errors, reverse=True)
    assert data["label_issues"] is None


def test_report_several_labels(images):
    level = images.mean(axis=(1, 2, 3))
    y = np.column_stack([level > 80, level > 120]).astype(int)
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None))
    data = report(classifier, images, y).to_dict()
    assert data["task"] == "labels"
    assert len(data["metrics"]["outputs"]) == 2
    assert data["metrics"]["together"] == (y.T @ y).tolist()
    assert data["n_mistakes"] == round((1 - data["metrics"]["accuracy"]) * len(y))


@pytest.fixture
def tuned():
    extractor = FeatureExtractor("tiny", cache=None)
    return TransferClassifier(extractor, fine_tune=FineTune(epochs=1), random_state=0)


@pytest.mark.long
def test_report_fine_tuning_refits_in_each_fold(tuned, images, labels):
    data = report(tuned, images, labels, cv=2).to_dict()
    assert len(data["fold_scores"]) == 2
    assert data["learning_curve"] is None


def test_report_shows_fine_tuning_of_fitted_estimator(tuned, images, labels):
    fitted = tuned.fit(images, labels)
    data = report(fitted, X_test=images, y_test=labels).to_dict()
    assert data["fine_tuning"]["head_score"] == fitted.report_["head_score"]
    assert data["metrics"]["accuracy"] == fitted.score(images, labels)


def test_report_unreadable_samples_are_listed(labels, images, tmp_path):
    files = [str(tmp_path / f"{row}.png") for row in range(45)]
    for row, file in enumerate(files):
        Image.fromarray(images[row]).save(file)
    (tmp_path / "3.png").write_bytes(b"not an image")
    extractor = FeatureExtractor("tiny", cache=None, on_error="nan")
    with pytest.warns(BadSampleWarning, match="cannot be read"):
        data = report(TransferClassifier(extractor), files, labels).to_dict()
    assert data["data"]["n_read"] == 44
    assert data["data"]["unread"] == [files[3]]
    assert data["advice"][0]["step"] == "Replace or remove the unreadable images"


def test_report_small_class_is_in_few_folds(classifier, images, labels):
    y = labels.copy()
    y[:2] = "rare"
    data = report(classifier, images, y).to_dict()
    assert data["metrics"]["classes"]["rare"]["support"] == 2
    assert any("small classes" in advice["step"] for advice in data["advice"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cv": 1}, "cv=1"),
        ({"cv": "five"}, "cv='five'"),
        ({"X": None}, "X and y, or X_test and y_test"),
        ({"y": ["a"] * 45}, "one class only"),
        ({"groups": [1, 2]}, "groups"),
        ({"estimator": LogisticRegression()}, "expected a TransferClassifier"),
        ({"estimator": []}, "at least one"),
        ({"estimator": TransferClassifier("no_such_network")}, "no_such_network"),
        ({"X": None, "y": None, "X_test": [1], "y_test": [1]}, "."),
    ],
)
def test_report_faulty_input_raises(given, message, classifier, images, labels):
    args = {"estimator": classifier, "X": images, "y": labels} | given
    with pytest.raises((InputError, ParameterError), match=message):
        report(args.pop("estimator"), args.pop("X"), args.pop("y"), **args)


def test_report_unfitted_without_training_samples_raises(classifier, images, labels):
    with pytest.raises(InputError, match="not fitted"):
        report(classifier, X_test=images, y_test=labels)


def test_report_unknown_test_class_raises(classifier, images, labels):
    classifier.fit(images, labels)
    with pytest.raises(InputError, match="purple"):
        report(classifier, X_test=images[:2], y_test=["dark", "purple"])


@pytest.mark.parametrize("name", ["page.txt", "page", "missing/page.html"])
def test_to_html_unsuitable_path_raises(name, found, tmp_path):
    with pytest.raises(InputError, match="page"):
        found.to_html(tmp_path / name)


def test_report_number_of_folds_may_be_numpy(found, classifier, images, labels):
    data = report(classifier, images, labels, cv=np.int64(3)).to_dict()
    assert data["split"] == found.to_dict()["split"]
    assert data["fold_scores"] == found.to_dict()["fold_scores"]


EVERY = np.arange(45)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (KFold(3, shuffle=True, random_state=0), "keep groups together"),
        ([(EVERY, EVERY)], "trains on its tests"),
        ([(EVERY, EVERY[:20]), (EVERY, EVERY[20:])], "trains on its tests"),
        ([], "cv="),
        ([1, 2], "cv="),
        ([([], EVERY)], "none to train on"),
        (46, "at most 5, the number of groups"),
    ],
)
def test_report_leaking_or_faulty_folds_raise(cv, message, classifier, images, labels):
    with pytest.raises(ParameterError, match=message) as raised:
        report(classifier, images, labels, cv=cv, groups=np.tile(np.arange(5), 9))
    assert len(str(raised.value)) < 300


def test_report_confidence_is_of_predicted_class(images, labels):
    y = np.where(labels == "light", "b", "a")
    head = FixedThresholdClassifier(LogisticRegression(), threshold=0.999, pos_label="b")
    found = report(TransferClassifier(FeatureExtractor("tiny", cache=None), head), images, y)
    missed = [entry for entry in found.to_dict()["mistakes"] if entry["label"] == "b"]
    assert missed
    for entry in missed:
        assert entry["confidence"] == pytest.approx(1 - np.exp(-entry["loss"]), abs=1e-5)


@pytest.mark.parametrize("are_relative", [[True] * 45, [False] * 45, [True, False, False] * 15])
def test_report_names_files(are_relative, classifier, images, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = []
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / label / f"{row}.png")
        folder = "" if are_relative[row] else f"{tmp_path}/"
        files.append(f"{folder}{label}/{row}.png")
    for entry in report(classifier, files, labels, cv=3).to_dict()["mistakes"]:
        assert entry["name"].endswith(f"{entry['label']}/{entry['row']}.png")


def test_report_float_classes_keep_their_digits(classifier, images):
    y = np.where(np.arange(45) % 2, 20200101.0, 20200102.0)
    entry = report(classifier, images, y, cv=3).to_dict()["mistakes"][0]
    assert {entry["label"], entry["predicted"]} == {"20200101.0", "20200102.0"}


@pytest.mark.parametrize("scale", [1, 1e300])
def test_report_values_without_relation_are_named(scale, images):
    y = np.random.default_rng(0).standard_normal(45) * scale
    head = DummyRegressor()
    regressor = TransferRegressor(FeatureExtractor("tiny", cache=None), head)
    data = report(regressor, images, y, cv=3).to_dict()
    assert data["metrics"]["r2"] < 0
    assert data["metrics"]["mean_absolute_error"] == pytest.approx(np.abs(y - y.mean()).mean(), 0.1)
    assert data["advice"][0]["step"] == "Do not use this model yet"


def test_report_values_may_be_booleans_but_must_differ(images):
    regressor = TransferRegressor(FeatureExtractor("tiny", cache=None))
    data = report(regressor, images, images.mean(axis=(1, 2, 3)) > 90, cv=3).to_dict()
    assert data["data"]["values"]["max"] == 1
    with pytest.raises(InputError, match="one value only, 1: R² is not defined"):
        report(regressor, images, np.ones(45))


def test_report_names_training_copies_and_their_labels(classifier, images, labels):
    data = report(
        classifier,
        images[::2],
        labels[::2],
        X_test=images[[1, 3, 0, 5]],
        y_test=["dark", "dark", "light", "grey"],
    ).to_dict()
    assert data["split"] == "fitted on 23 samples and evaluated on the given test samples"
    assert (data["n_in_training"], data["caveat"]) == (1, None)
    pair = data["duplicates"]["pairs"][0]
    assert (pair["first"]["row"], pair["second"]["name"]) == (2, "training sample row 0")
    assert (pair["second"]["label"], data["duplicates"]["n_contradicting"]) == ("dark", 1)
    assert "Remove the copies from the test samples" in str(data["advice"])


def test_report_estimator_by_name_is_one_fault(images, labels):
    with pytest.raises(ParameterError, match="estimator='tiny'") as raised:
        report("tiny", images, labels)
    assert len(raised.value.faults) == 1


def test_suspects_to_look_at_are_as_many_as_have_pictures():
    data = {"label_issues": {"n_expected": 500.0, "suspects": [{"row": n} for n in range(900)]}}
    assert n_first_suspects(data) == N_LISTED
    data["label_issues"]["n_expected"] = 0.5
    assert n_first_suspects(data) == 10
    assert n_first_suspects({"label_issues": None}) == 0


def test_report_of_useless_model_trusts_no_label_check(tmp_path):
    """Embeddings that do not tell the classes apart cannot show which labels are wrong."""
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    found = report(TransferClassifier("tiny", "knn"), images, [0, 1] * 30, cv=3)
    steps = [advice["step"] for advice in found.to_dict()["advice"]]
    assert steps[0] == "Do not use this model yet"
    assert not any("suspect labels" in step for step in steps)
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ("cannot show which labels are wrong" in page) == bool(
        found.to_dict()["label_issues"]["suspects"]
    )
    assert found.to_dict()["label_issues"]["suspects"]


def test_report_groups_widen_the_intervals():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    groups = np.repeat(np.arange(10), 4)
    found = report(TransferClassifier("tiny", "knn"), images, [0, 1] * 20, cv=2, groups=groups)
    metrics = found.to_dict()["metrics"]
    assert metrics["n_groups"] == 10
    n_right = round(metrics["accuracy"] * 40)
    low, high = metrics["intervals"]["accuracy"]
    plain = wilson_interval(n_right, 40)
    assert high - low > plain[1] - plain[0]


def test_report_groups_of_test_widen_the_intervals(classifier, images, labels):
    fitted = classifier.fit(images, labels)
    groups = np.arange(len(labels)) % 4
    found = report(fitted, X_test=images, y_test=labels, groups=groups).to_dict()
    assert found["metrics"]["n_groups"] == found["data"]["n_groups"] == 4
    with pytest.raises(InputError, match="groups"):
        report(fitted, X_test=images, y_test=labels, groups=groups[:3])
