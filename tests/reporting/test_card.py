"""Model cards: their front matter, their text, and what must not be in them."""

import sys
import threading

import keras
import numpy as np
import pytest
import yaml
from markdown_cells import NAMES, cells_of
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from featx import (
    FeatureExtractor,
    ModelCard,
    TransferClassifier,
    TransferRegressor,
    evaluate,
    load,
    model_card,
    save,
)
from featx._text import one_line
from featx.exceptions import InputError, MissingExtraError, ParameterError


def front_matter(card):
    start, matter, body = str(card).split("---\n", 2)
    assert start == ""
    assert body.startswith("\n# ")
    return yaml.safe_load(matter)


def section(card, title):
    return str(card).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture
def classifier(images, labels):
    return TransferClassifier("tiny").fit(images, labels)


@pytest.fixture
def report(classifier, images, labels):
    wrong = np.where(np.arange(20) < 2, "light", labels)
    metrics = evaluate(
        wrong,
        classifier.predict(images),
        proba=classifier.predict_proba(images),
        classes=classifier.classes_,
    )
    return {
        "metrics": metrics,
        "split": "5 folds, stratified",
        "data": {"n_samples": 20, "classes": {"dark": 10, "light": 10}, "n_groups": 7},
        "baselines": {"majority": 0.5},
        "label_issues": {"n_expected": 3.2},
        "duplicates": {"n_across": 2},
        "versions": {"featx": "0.1.0"},
    }


def test_card_of_loaded_file_has_results(classifier, report, tmp_path):
    save(classifier, tmp_path / "model.featx")
    card = model_card(load(tmp_path / "model.featx"), report)
    matter = front_matter(card)
    assert matter["library_name"] == "featx"
    assert matter["pipeline_tag"] == "image-classification"
    assert matter["license"] == "mit"
    ((entry,), accuracy) = matter["model-index"][0]["results"], report["metrics"]["accuracy"]
    assert entry["metrics"][0] == {"type": "accuracy", "name": "accuracy", "value": accuracy}
    assert entry["task"]["type"] == "image-classification"
    low, high = report["metrics"]["intervals"]["accuracy"]
    results = section(card, "Results")
    assert f"| accuracy | {accuracy:.3f} | {low:.3f} to {high:.3f} |" in results
    assert "5 folds, stratified" in results
    assert "Expected calibration error" in results
    assert "| dark | 10 |" in section(card, "Data")
    assert classifier.extractor_.space_digest_ in section(card, "Model")
    assert 'featx.load("model.featx")' in section(card, "How to load")
    assert "| shape | (n, 64, 64, 3) |" in section(card, "How to serve")


def test_card_names_limits_of_measurements(classifier, report):
    limits = section(model_card(classifier, report), "Limits")
    assert "It takes light for dark in 1 of 11 samples." in limits
    for limit in ("2 classes were measured on fewer than 20", "About 3 labels", "near-duplicates"):
        assert limit in limits


def test_card_without_report_is_not_measured(classifier):
    card = model_card(classifier)
    assert "model-index" not in front_matter(card)
    assert "not measured" in section(card, "Results")
    assert "Measure the model" in section(card, "To do")


def test_card_hostile_names_are_plain_text(images):
    names = np.array(NAMES)[np.arange(40) % len(NAMES)]
    images = np.tile(images, (2, 1, 1, 1))
    classifier = TransferClassifier("tiny", "nearest_mean").fit(images, names)
    counts = dict.fromkeys(NAMES, 2)
    report = {"metrics": evaluate(names, names), "data": {"classes": counts}, "split": NAMES[0]}
    card = model_card(classifier, report)
    front_matter(card)
    shown, with_tags = cells_of(str(card))
    assert set(map(one_line, NAMES)) <= set(shown)
    assert all(cell.startswith("<code>") for cell in with_tags)
    assert "<script" not in str(card)


def test_card_unknown_license_is_to_do(images, labels):
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs), name="own")
    scaling = keras.layers.Rescaling(1 / 255)
    extractor = FeatureExtractor(model, preprocessing=scaling)
    card = model_card(TransferClassifier(extractor).fit(images, labels))
    assert front_matter(card)["license"] == "unknown"
    assert "license of the backbone's weights" in section(card, "To do")
    assert "| preprocessing | a Keras layer |" in section(card, "Model")
    assert "| backbone | own |" in section(card, "Model")


def test_card_of_inner_layer_has_license_of_network(images, labels):
    extractor = FeatureExtractor("tiny", layer="stage1")
    card = model_card(TransferClassifier(extractor).fit(images, labels))
    assert front_matter(card)["license"] == "mit"
    assert "| license of the backbone's weights | MIT |" in section(card, "Model")


def test_card_names_no_path(images, labels, tmp_path):
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.GlobalMaxPooling2D()])
    model.save(tmp_path / "own.keras")
    extractor = FeatureExtractor(tmp_path / "own.keras", cache=tmp_path / "cache")
    classifier = TransferClassifier(extractor).fit(images, labels)
    folder = str(tmp_path)
    data = {"folder": folder, "unread": [f"{folder}/a.png"], "n_samples": 20}
    card = model_card(classifier, {"data": data, "mistakes": [{"name": f"{folder}/b.png"}]})
    assert folder not in str(card)
    assert "| of these, could not be read | 1 |" in str(card)


def test_card_of_fine_tuned_model_has_both_scores(classifier):
    classifier.report_.update(kept="tuned", head_score=0.9, tuned_score=0.95)
    card = model_card(classifier)
    assert "| validation scores of head and fine-tuned model | 0.900 and 0.950 |" in str(card)
    assert "| weights | fine-tuned, in the saved file |" in str(card)
    assert front_matter(card)["license"] == "unknown"


def test_card_names_parameters_of_backbone(images, labels):
    extractor = FeatureExtractor("tiny", resize="crop", views=2, augment="standard")
    classifier = TransferClassifier(extractor, "ridge").fit(images[:4], labels[:4])
    classifier.extractor_.set_params(backbone_params={"alpha": 0.25})
    card = model_card(classifier)
    assert repr(card) == "<ModelCard Image classifier on tiny>"
    assert "| parameters of the backbone | {'alpha': 0.25} |" in section(card, "Model")
    assert "| augmented views | 2 |" in section(card, "Model")
    assert "resized | crop, " in section(card, "How to serve")
    assert "model.predict([" in section(card, "How to load")


def test_card_untrusted_head_names_types(images, labels):
    head = KNeighborsClassifier(1, algorithm="kd_tree")
    card = model_card(TransferClassifier("tiny", head).fit(images, labels))
    assert "sklearn.neighbors._kd_tree.KDTree'])" in section(card, "How to load")
    assert "only if you trust the author" in section(card, "How to load")
    assert "the head is not linear" in section(card, "How to serve")


def test_card_head_that_cannot_be_saved(images, labels):
    classifier = TransferClassifier("tiny", DummyClassifier()).fit(images, labels)
    classifier.head_.lock = threading.Lock()
    assert "cannot be saved" in section(model_card(classifier), "How to load")


def test_card_of_regressor_has_values(images):
    regressor = TransferRegressor("tiny").fit(images, images.mean(axis=(1, 2, 3)))
    metrics = {"r2": 0.9, "mean_absolute_error": 1.25, "intervals": {"r2": [0.8, 0.95]}}
    card = model_card(regressor, {"metrics": metrics, "data": {"values": {"median": 12.5}}})
    matter = front_matter(card)
    assert "pipeline_tag" not in matter
    assert [metric["type"] for metric in matter["model-index"][0]["results"][0]["metrics"]] == [
        "r_squared",
        "mae",
    ]
    assert "| R² | 0.900 | 0.800 to 0.950 |" in section(card, "Results")
    assert "| mean absolute error | 1.250 | not measured |" in section(card, "Results")
    assert "alibration" not in section(card, "Results")
    assert "| median of the values | 12.500 |" in section(card, "Data")


def test_card_of_several_labels_has_outputs(images):
    y = np.arange(40).reshape(20, 2) % 3 == 0
    classifier = TransferClassifier("tiny").fit(images, y.astype(int))
    outputs = [evaluate(column, column) for column in y.T]
    card = model_card(classifier, {"metrics": {"accuracy": 0.75, "outputs": outputs}})
    assert "predicts several labels" in str(card)
    assert "| accuracy of output 2 | 1.000 |" in section(card, "Results")


def test_card_of_vectors_has_their_shape(labels):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    card = model_card(TransferClassifier(FeatureExtractor(model)).fit(rows, labels))
    assert "pipeline_tag" not in front_matter(card)
    assert "| shape | (n, 4) |" in section(card, "How to serve")
    assert "model.predict_proba(X)" in section(card, "How to load")


@pytest.mark.parametrize("junk", [None, 1, "text", [1], {"a": 1}, True, float("nan")])
def test_card_of_foreign_report_is_written(junk, classifier):
    names = ("metrics", "data", "split", "versions", "baselines", "label_issues", "duplicates")
    inner = (
        "accuracy",
        "macro",
        "confusion",
        "classes",
        "intervals",
        "calibration",
        "outputs",
        "n_samples",
    )
    for report in (dict.fromkeys(names, junk), {"metrics": dict.fromkeys(inner, junk)}):
        if isinstance(junk, dict):
            report["metrics"].pop("classes", None)
        card = model_card(classifier, report)
        assert front_matter(card)["library_name"] == "featx"
        assert "Image classifier on tiny" in str(card)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": 1.0, "classes": {"dark": {}, "cat\n": {}}}, r"another model.*cat\\n"),
        ({"classes": {"cat": {}}}, "another model"),
    ],
)
def test_card_report_of_other_model_raises(metrics, message, classifier):
    with pytest.raises(InputError, match=message):
        model_card(classifier, {"metrics": metrics})


def test_card_report_of_classifier_raises_for_regressor(images):
    regressor = TransferRegressor("tiny").fit(images, np.arange(20.0))
    with pytest.raises(InputError, match="the report is of a classifier"):
        model_card(regressor, {"metrics": {"accuracy": 0.5}})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: model_card(FeatureExtractor("tiny")), "estimator"),
        (lambda: model_card(TransferClassifier, None), "estimator"),
    ],
)
def test_card_of_other_object_raises(make, name):
    with pytest.raises(ParameterError, match=f"{name}="):
        make()


def test_card_faulty_report_raises(classifier):
    with pytest.raises(ParameterError, match=r"report='report\.json': expected a Report"):
        model_card(classifier, "report.json")


def test_card_takes_objects_with_data(classifier):
    class Report:
        def to_dict(self):
            return {"split": "three folds", "metrics": {"accuracy": 0.25}}

    assert "three folds" in str(model_card(classifier, Report()))


def test_card_is_saved_as_utf_8(classifier, tmp_path):
    card = model_card(classifier, {"split": "Ärger"})
    card.save(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == str(card)
    with pytest.raises(ParameterError, match="no such folder"):
        card.save(tmp_path / "missing" / "README.md")


def test_card_without_yaml_names_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"PyYAML.*pip install 'featx\[report\]'"):
        str(ModelCard({}, "# Title"))


def test_card_of_another_report_raises():
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    classifier = TransferClassifier("tiny").fit(images, ["cat", "dog"] * 3)
    other = {"metrics": {}, "model": {"space": "0" * 32, "backbone": "another"}}
    with pytest.raises(InputError, match=r"another model: its embeddings are of space 0+"):
        model_card(classifier, other)
    with pytest.raises(InputError, match="'findings': expected what"):
        model_card(classifier, {"findings": []})
