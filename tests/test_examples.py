"""The examples run, most of them on a third of the digits, and show what they say they show."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.cli.demo import write_digits

EXAMPLES = Path(__file__).parents[1] / "examples"


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
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    yield run
    sys.modules.pop("digits", None)


def test_image_folder_is_learned_and_saved(run, folder):
    shown = run("image_folder", folder)
    assert shown["scores"].mean() > 0.9
    assert shown["classifier"].report_.n_forward == 0
    assert (shown["restored"].predict(shown["test"]) == shown["y_test"]).mean() > 0.9


@pytest.mark.long
def test_image_beside_table_is_better_than_either(run, folder):
    shown = run("image_beside_table", folder)
    assert shown["accuracy"]["both"] > max(shown["accuracy"]["image"], shown["accuracy"]["table"])
    assert shown["importances"].index[0] == "image"


@pytest.mark.long
def test_layer_and_head_search_takes_one_pass(run, folder):
    shown = run("layer_and_head_search", folder)
    assert shown["extractor"].report_.n_forward == len(shown["folder"].data)
    assert shown["search"].best_estimator_.report_.n_forward == 0
    assert shown["search"].best_score_ > 0.85


def test_own_keras_model_transfers_what_it_learned(run, folder):
    shown = run("own_keras_model", folder)
    random, trained = shown["accuracy"].values()
    assert trained > random + 0.01
    assert shown["extractor"].report_.n_forward == len(shown["new"])
    assert shown["same"]
    assert shown["saved"].report_.n_forward == 0


def test_multi_label_finds_both_digits(run, folder):
    shown = run("multi_label", folder)
    assert shown["precision"].mean() > 4 * shown["y"].mean()


@pytest.mark.long
def test_regression_measures_angles(run, folder):
    shown = run("regression", folder)
    assert shown["error"] < shown["guess_error"] / 3


@pytest.mark.long
def test_few_labels_gain_by_self_training(run):
    accuracy = run("few_labels")["accuracy"]
    assert accuracy["few labels"] < accuracy["self-training"] < accuracy["all labels"]


@pytest.mark.long
def test_several_views_help_where_labels_are_few(run, folder):
    shown = run("several_views", folder)
    assert shown["accuracy"][6] > shown["accuracy"][1]
    low, high = shown["result"]["intervals"]["accuracy"]
    assert low < shown["accuracy"][6] < high


@pytest.mark.long
def test_displays_show_paths_of_images(run, folder):
    shown = run("displays", folder)
    files = sorted(path.stem for path in Path("figures").iterdir())
    assert files == sorted(shown["displays"])
    assert shown["displays"]["roc"].roc_auc > 0.9
    n_wrong = (shown["classifier"].predict(shown["test"]) != shown["y_test"]).sum()
    assert shown["displays"]["mistakes"].n_mistakes == n_wrong


@pytest.mark.long
def test_saliency_finds_pixels_that_decide(run, folder):
    shown = run("saliency", folder)
    assert Path("saliency.png").is_file()
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


def test_every_example_is_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"digits"}
    for name in names:
        assert f'run("{name}"' in Path(__file__).read_text(encoding="utf-8")
    assert len(names) == 10


def test_digits_are_written_once_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])
    image_folder = runpy.run_path(str(EXAMPLES / "digits.py"))["image_folder"]
    folder = Path(image_folder())
    assert len(list(folder.rglob("*.png"))) == len(load_digits().target)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert image_folder() == str(folder)
