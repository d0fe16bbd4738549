"""``featx cv``: one pass for all heads, the best row first, failing backbones beside the others."""

import json

import keras
import pytest
from command_line import CODES

from featx.cli.cv import print_comparisons
from featx.evaluation.comparison import Comparison, EmbeddingPass


def test_cv_compares_heads_and_backbones(run, photos):
    arguments = ("cv", photos, "--folds", 3, "--head", "ridge", "--head", "knn", "-q")
    arguments += ("--backbone", "tiny", "--preprocessing", "tf")
    code, text, _ = run(*arguments, "--json")
    assert code == 0
    found = json.loads(text)
    assert [row["head"] for row in found["results"]] == ["ridge", "knn", "majority class"]
    assert [row["p_value"] for row in found["results"]] == [1, 1, None]
    assert [(each["backbone"], each["n_forward"]) for each in found["embedding"]] == [("tiny", 12)]
    code, text, _ = run(*arguments)
    assert "1.000 ± 0.000" in text
    assert "accuracy, 3 folds" in text


@pytest.mark.filterwarnings("default::featx.exceptions.BackboneWarning")
def test_cv_failing_backbone_leaves_others(run, photos, tmp_path):
    inputs = keras.Input((64, 64, 3))
    means = keras.layers.GlobalAveragePooling2D()(inputs)
    endless = tmp_path / "endless.keras"
    keras.Model(inputs, keras.layers.Rescaling(1e38)(means)).save(endless)
    arguments = ("cv", photos, "--folds", 3, "-q", "--head", "knn", "--backbone")
    code, text, err = run(*arguments, endless, "--backbone", "tiny", "--json")
    assert code == 0
    assert "BackboneWarning: endless" in err
    found = json.loads(text)
    assert [row["backbone"] for row in found["results"]] == ["tiny", ""]
    assert "NaN or infinite" in found["failed"][0]["error"]
    code, text, err = run(*arguments, endless)
    assert (code, text) == (CODES["backbone"], "")
    assert "gives NaN or infinite values" in err


def test_cv_layers_and_poolings_share_pass(run, photos):
    arguments = ("--pooling", "avg", "--pooling", "max", "--head", "knn", "--json", "-q")
    layers = ("--layer", "output", "--layer", "stage2")
    code, text, err = run("cv", photos, "--folds", 3, "--backbone", "tiny", *layers, *arguments)
    assert code == 0, err
    passes = json.loads(text)["embedding"]
    names = ["tiny (avg)", "tiny (max)", "tiny/stage2 (avg)", "tiny/stage2 (max)"]
    assert [each["backbone"] for each in passes] == names
    assert [each["n_forward"] for each in passes] == [12, 0, 0, 0]


@pytest.mark.long
@pytest.mark.slow
def test_cv_fine_tune_has_a_row(run, photos):
    arguments = ("cv", photos, "--folds", 2, "--backbone", "tiny", "--head", "knn", "-q", "--json")
    code, text, err = run(*arguments, "--fine-tune", 1, "--tune", "epochs=1")
    assert code == 0, err
    heads = [row["head"] for row in json.loads(text)["results"]]
    assert sorted(heads) == ["knn", "knn + fine-tuned 1", "majority class"]
    code, text, err = run(*arguments, "--fine-tune", 99)
    assert (code, text, "--fine-tune 99: " in err) == (CODES["input"], "", True)
    code, text, err = run(*arguments, "--tune", "epochs=1")
    assert (code, "--tune: works with --fine-tune only" in err) == (2, True)


def test_cv_groups_stay_in_one_fold(run, photos, tmp_path):
    groups = tmp_path / "patients.csv"
    lines = [f"{name}/{n}.png,{name}{n // 3}" for name in ("dark", "light") for n in range(6)]
    groups.write_text("\n".join(["path,group", *lines]))
    arguments = ("cv", photos, "--backbone", "tiny", "--head", "knn", "-q", "--groups", groups)
    code, _, err = run(*arguments, "--folds", 5)
    assert (code, "5 folds need as many groups, but there are 4" in err) == (CODES["input"], True)
    assert run(*arguments, "--folds", 2)[0] == 0


@pytest.mark.filterwarnings("default")
def test_cv_near_duplicates_warning_has_a_cure(run, photos):
    for number in range(5):
        (photos / "dark" / f"copy{number}.png").write_bytes(
            (photos / "dark" / f"{number}.png").read_bytes()
        )
    code, _, err = run("cv", photos, "--backbone", "tiny", "-q")
    assert code == 0
    assert "NearDuplicateWarning: " in err
    assert "Remove all but one, or give the copies one group: --groups, for cv" in err
    assert "groups=" not in err


def test_print_comparisons_explains_rows(capsys):
    rows = [
        Comparison("tiny_avg", "logistic", 0.9, 0.05, 1.5, [0.85, 0.95]),
        Comparison("", "majority class", 0.5, 0.0, 0.1, [0.5, 0.5]),
    ]
    print_comparisons(rows, [EmbeddingPass("tiny_avg", 20, 0, 7.25)], n_folds=2)
    best, baseline, embedding = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("│")
    ]
    assert "* " in best
    assert "0.900 ± 0.050" in best
    assert "majority class" in baseline
    assert "0.500 ± 0.000 │       │" in baseline
    assert "20" in embedding
    assert "7.25" in embedding


@pytest.mark.parametrize(("n_heads", "is_told"), [(9, False), (10, True)])
def test_print_comparisons_of_many_names_the_bias(n_heads, is_told, capsys):
    rows = [Comparison("tiny", f"head {n}", 0.9, 0.05, 1.5, [0.85, 0.95]) for n in range(n_heads)]
    rows.append(Comparison("", "majority class", 0.5, 0.0, 0.1, [0.5, 0.5]))
    print_comparisons(rows, [EmbeddingPass("tiny", 20, 0, 7.25)], n_folds=2)
    assert ("The best of 10 was chosen by the folds" in capsys.readouterr().out) == is_told
