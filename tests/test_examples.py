"""The examples run, most of them on a third of the digits, and show what they say they show."""

import ast
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.cli.demo import write_digits

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted({path.stem for path in EXAMPLES.glob("*.py")} - {"digits"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every third digit, as files."""
    folder = tmp_path_factory.mktemp("examples") / "digits"
    write_digits(folder)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        if number % 3:
            path.unlink()
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example as ``python examples/<name>.py [FOLDER]`` does; return its variables."""
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    figures = []
    monkeypatch.setattr(plt, "show", lambda: figures.extend(map(plt.figure, plt.get_fignums())))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        shown = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        assert figures, "it shows no figure"
        return shown

    yield run
    sys.modules.pop("digits", None)


@pytest.mark.long
def test_image_folder_is_learned_and_saved(run, folder):
    shown = run("image_folder", folder)
    assert shown["scores"].mean() > 0.9
    assert shown["classifier"].report_.n_forward == 0
    predicted = shown["restored"].predict(shown["test"])
    assert shown["mistakes"].n_mistakes == (predicted != shown["y_test"]).sum()


def test_similar_images_have_the_class_of_query(run, folder):
    shown = run("similar_images", folder)
    names = shown["folder"].target_names[:5]
    of_neighbors = shown["y_train"][shown["similar"].indices]
    assert (of_neighbors == np.array(names)[:, None]).mean() > 0.7
    assert shown["accuracy"]["all ten"] > shown["accuracy"]["fewer"]


@pytest.mark.long
def test_wrong_labels_are_found_at_the_top(run, folder):
    shown = run("wrong_labels", folder)
    n_changed = len(shown["changed"])
    assert shown["n_found"][n_changed - 1] > 0.7 * n_changed
    assert shown["low"] < n_changed < shown["high"]


def test_near_duplicates_raise_score_without_groups(run, folder):
    shown = run("near_duplicates", folder)
    assert shown["is_true"].mean() > 0.9
    apart, together = (scores.mean() for scores in shown["scores"].values())
    assert apart > together + 0.02


@pytest.mark.long
def test_xray_patients_raise_score_without_groups(run):
    shown = run("xray_patients")
    apart, together = shown["means"]
    assert apart > together + 0.1
    assert Path("xrays.html").read_text().count("data:image/") > 10


@pytest.mark.long
def test_few_labels_gain_by_views_and_self_training(run):
    accuracy = run("few_labels")["accuracy"]
    few, views, self_training, all_labels = accuracy.values()
    assert few < views < all_labels
    assert few < self_training < all_labels


@pytest.mark.long
def test_image_beside_table_is_better_than_either(run, folder):
    shown = run("image_beside_table", folder)
    assert shown["accuracy"]["both"] > max(shown["accuracy"]["image"], shown["accuracy"]["table"])
    assert shown["X"].columns[shown["order"][-1]] == "image"


@pytest.mark.long
def test_model_selection_searches_with_one_pass(run, folder):
    shown = run("model_selection", folder)
    best = shown["comparison"].groupby("backbone").accuracy.max()
    assert best["tiny"] > best["tiny, random weights"]
    assert shown["extractor"].report_.n_forward == len(shown["X"])
    assert shown["search"].best_estimator_.report_.n_forward == 0


@pytest.mark.long
def test_own_keras_model_transfers_what_it_learned(run):
    shown = run("own_keras_model")
    random, trained = (scores.mean() for scores in shown["scores"].values())
    assert trained > random + 0.01
    assert shown["extractor"].report_.n_forward == len(shown["new"])
    assert shown["same"]
    assert shown["saved"].report_.n_forward == 0


@pytest.mark.long
def test_multi_label_finds_both_digits(run, folder):
    shown = run("multi_label", folder)
    assert shown["precision"].mean() > 4 * shown["y"].mean()


@pytest.mark.long
def test_regression_measures_angles(run, folder):
    shown = run("regression", folder)
    assert shown["error"] < shown["guess_error"] / 3


@pytest.mark.long
def test_fine_tuning_wins_where_frozen_features_fail(run, folder):
    shown = run("fine_tuning", folder)
    assert shown["report"].kept == "tuned"
    assert shown["accuracy"]["fine-tuned"] > shown["accuracy"]["frozen"]


@pytest.mark.long
def test_calibration_makes_forest_more_certain(run, folder):
    results = run("calibration", folder)["results"]
    assert results["as fitted"]["calibration"]["tendency"] == "underconfident"
    errors = [result["calibration"]["error"] for result in results.values()]
    assert errors[1] < errors[0] / 2


@pytest.mark.long
def test_saliency_finds_pixels_that_decide(run, folder):
    shown = run("saliency", folder)
    pixels, saliency, predicted = shown["pixels"], shown["saliency"], shown["predicted"]
    order = np.argsort(saliency, axis=None)
    probability = shown["model"](pixels[np.newaxis])[0, predicted]
    change = {}
    for name, brightened in (("least", order[:50]), ("most", order[-50:])):
        image = pixels.reshape(-1, 3).copy()
        image[brightened] = np.minimum(image[brightened] + 32, 255)
        changed = shown["model"](image.reshape(1, *pixels.shape))[0, predicted]
        change[name] = abs(float(changed - probability))
    assert change["most"] > 10 * change["least"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::featx.exceptions.BadSampleWarning")
def test_batch_predict_writes_a_row_for_each_path(run, folder):
    shown = run("batch_predict", folder)
    table, classifier = shown["table"], shown["classifier"]
    assert table["path"].to_pylist() == shown["paths"]
    assert table["label"].to_pylist()[-1] is None
    expected = classifier.predict(shown["paths"][:20])
    assert table["label"].to_pylist()[:20] == expected.tolist()


def test_batch_predict_without_pyarrow_exits_with_advice(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit, match="pip install pyarrow"):
        run("batch_predict", folder)


@pytest.mark.long
def test_onnx_model_gives_the_same_probabilities(run, folder):
    pytest.importorskip("onnxruntime")
    shown = run("onnx_model", folder)
    assert shown["difference"] < 1e-4
    assert shown["class_names"] == shown["classifier"].classes_.tolist()
    assert shown["metadata"].keys() == {"class_names", "inputs", "full_precision"}


@pytest.mark.parametrize("name", NAMES)
def test_example_has_title_and_is_tested(name):
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")))
    title, underline = docstring.splitlines()[:2]
    assert underline == "=" * len(title)
    assert f'run("{name}"' in Path(__file__).read_text(encoding="utf-8")


def test_digits_are_written_once_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])
    image_folder = runpy.run_path(str(EXAMPLES / "digits.py"))["image_folder"]
    folder = Path(image_folder())
    assert len(list(folder.rglob("*.png"))) == len(load_digits().target)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert image_folder() == str(folder)
