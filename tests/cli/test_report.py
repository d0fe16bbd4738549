"""`featx report`: a page from a folder, or from a saved model and a folder."""

import json

import pytest


def test_report_writes_page_from_folder(run, photos, tmp_path):
    out = tmp_path / "report.html"
    code, text, err = run(
        "report", photos, "--out", out, "--backbone", "tiny", "--head", "ridge", "--head", "knn"
    )
    assert code == 0, err
    assert "12 images, cross-validation with 5 folds" in text
    assert "accuracy 1.000" in text
    assert "Comparison" in out.read_text(encoding="utf-8")


def test_report_json_is_data_of_report(run, photos, tmp_path):
    out = tmp_path / "report.html"
    code, text, _ = run("report", photos, "--out", out, "--backbone", "tiny", "--json")
    assert code == 0
    assert json.loads(text)["data"]["classes"] == {"dark": 6, "light": 6}


def test_report_groups_stay_in_one_fold(run, photos, tmp_path):
    groups = tmp_path / "patients.csv"
    lines = [f"{name}/{n}.png,{name}{n // 3}" for name in ("dark", "light") for n in range(6)]
    groups.write_text("\n".join(["path,group", *lines]))
    arguments = ("report", photos, "--out", tmp_path / "r.html", "--backbone", "tiny", "--json")
    code, text, err = run(*arguments, "--groups", groups, "--folds", 2)
    assert code == 0, err
    assert json.loads(text)["data"]["n_groups"] == 4


def test_report_evaluates_saved_model(run, photos, model, tmp_path):
    code, text, err = run("report", model, photos, "--out", tmp_path / "r.html", "--json")
    assert code == 0, err
    data = json.loads(text)
    assert data["split"] == "evaluated on the given test samples"
    sentence = "12 of 12 samples were in the training data of the model: these scores are too good."
    assert (data["n_in_training"], data["caveat"]) == (12, sentence)
    assert sentence in (tmp_path / "r.html").read_text()
    assert data["cost"]["n_forward"] == 0


def test_report_splits_train_and_evaluate(run, photos, tmp_path):
    sets = tmp_path / "sets"
    sets.mkdir()
    photos.rename(sets / "train")
    for name in ("dark", "light"):
        (sets / "val" / name).mkdir(parents=True)
        for number in (0, 1, 2):
            (sets / "train" / name / f"{number}.png").rename(sets / "val" / name / f"{number}.png")
    code, text, err = run(
        "report", sets, "--out", tmp_path / "r.html", "--backbone", "tiny", "--json"
    )
    assert code == 0, err
    assert json.loads(text)["data"]["n_read"] == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["PHOTOS", "--out", "r.txt"], 3, "html"),
        (["PHOTOS"], 2, "--out"),
        (["MODEL", "PHOTOS", "--head", "knn", "--out", "r.html"], 2, "saved model"),
        (["PHOTOS", "--groups", "gone.csv", "--out", "r.html"], 3, "no such file of groups"),
        (["a", "b", "c", "--out", "r.html"], 2, "3 paths"),
        (["missing", "--out", "r.html", "--backbone", "tiny"], 3, "missing"),
        (["PHOTOS", "--out", "r.html", "--backbone", "tiny", "--head", "nothing"], 3, "nothing"),
    ],
)
def test_report_wrong_usage(arguments, code, message, run, photos, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"PHOTOS": photos, "MODEL": model}
    found, _, err = run("report", *(names.get(each, each) for each in arguments))
    assert (found, message in err) == (code, True), err
    assert not (tmp_path / "r.html").exists()
