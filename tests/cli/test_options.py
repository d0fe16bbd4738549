"""Options of the command: listed in the help, parsed, passed on, and named in errors."""

import json
import re

import pytest
from command_line import CODES

from featx import EmbeddingCache, FineTune
from featx.cli.options import make_fine_tune
from featx.heads.named import CLASSIFIER_HEADS


@pytest.mark.parametrize("job", ["fit", "cv"])
def test_help_lists_every_head_and_the_default(job, run):
    help_text = " ".join(run(job, "--help")[1].split())
    *others, last = CLASSIFIER_HEADS
    assert f"--head TEXT {', '.join(others)} or {last} [default: logistic]" in help_text


def test_help_lists_every_parameter_of_fine_tuning(run):
    names = set(FineTune().get_params()) - {"unfreeze"}
    listed = run("fit", "--help")[1].partition("--tune NAME=VALUE")[2].partition("  --")[0]
    assert names <= set(re.findall(r"\w+", listed))


def test_extract_options_reach_the_extractor(run, photos, tmp_path):
    out = tmp_path / "rows.npz"
    options = "--weights none --param alpha=0.35 --input-size 32 --pooling max --batch-size 5"
    options += " --layer block_1_expand_relu --cache none --n-jobs 1 --preprocessing unit -q"
    code, text, _ = run(
        "extract", photos, "--out", out, "--backbone", "mobilenet_v2", "--json", *options.split()
    )
    assert code == 0
    result = json.loads(text)
    assert result["shape"] == [12, 48]
    assert result["report"]["n_forward"] == 12
    assert EmbeddingCache().info()["n_rows"] == 0


def test_weights_have_two_names_at_the_shell(run, photos, tmp_path):
    n_forward = []
    for weights in ("imagenet", "pretrained"):
        arguments = ("--out", tmp_path / f"{weights}.npz", "--backbone", "tiny", "--json", "-q")
        code, text, _ = run("extract", photos, *arguments, "--weights", weights)
        assert code == 0
        n_forward.append(json.loads(text)["report"]["n_forward"])
    assert n_forward == [12, 0]


def test_resize_reaches_the_extractor(run, photos, tmp_path):
    extract = ("extract", photos, "--backbone", "tiny", "--json", "-q", "--out")
    for resize in ("stretch", "crop"):
        code, text, _ = run(*extract, tmp_path / f"{resize}.npz", "--resize", resize)
        assert code == 0
        assert json.loads(text)["report"]["n_forward"] == 12  # rows of its own
    code, _, err = run(*extract, tmp_path / "x.npz", "--resize", "cropped")
    assert code != 0
    assert "--resize 'cropped': expected" in err


def test_in_channels_reach_the_extractor(run, photos, tmp_path):
    extract = ("extract", photos, "--backbone", "tiny", "-q", "--out", tmp_path / "rows.npz")
    assert run(*extract, "--in-channels", 1)[0] == 0
    code, _, err = run(*extract, "--in-channels", 0, "--force")
    assert code != 0
    assert "--in-channels 0: expected a positive integer" in err


def test_parameter_values_reach_the_backbone(run, photos, tmp_path):
    arguments = ("extract", photos, "--out", tmp_path / "m.npz", "--backbone", "mobilenet_v2")
    arguments += ("--weights", "none", "--input-size", 32, "-q")
    assert run(*arguments, "--param", "alpha=.35", "--param", "name=mine")[0] == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        (".35", 0.35),
        ("1.", 1.0),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("(96, 96)", (96, 96)),
        ("{'dark': 2}", {"dark": 2}),
        ('"balanced"', "balanced"),
        ("'balanced'", "balanced"),
        ("balanced", "balanced"),
        ("block_(3|4)", "block_(3|4)"),
        ("block_[34]", "block_[34]"),
        ("08", "08"),
        ("(" * 500, "(" * 500),
    ],
)
def test_tune_value_is_json_python_or_text(text, value):
    params = make_fine_tune({"tune": (f"class_weight={text}",), "unfreeze": text}).get_params()
    for got in (params["class_weight"], params["unfreeze"]):
        assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tune", "epochs=2"], "works with --fine-tune only"),
        (["--fine-tune", 1, "--tune", "epoch=2"], "Did you mean 'epochs'"),
        (["--fine-tune", 1, "--tune", "epochs=0"], "--tune epochs=0"),
        (["--fine-tune", 1, "--tune", "batch_size=0"], "--tune batch_size=0"),
        (["--fine-tune", 1.5], "--fine-tune 1.5"),
    ],
)
def test_fit_faulty_fine_tuning_options_are_named(options, expected, run, photos, tmp_path):
    code, _, err = run("fit", photos, "--out", tmp_path / "model.featx", *options)
    assert code in (2, CODES["input"])
    assert expected in err


def test_faulty_parameters_are_named_as_options(run, photos):
    code, _, err = run("cv", photos, "--pooling", "average", "--weights", "gone.h5", "-q")
    assert code == CODES["input"]
    assert err.startswith("error: 2 faulty options:\n")
    assert "--pooling 'average': expected" in err
    assert "--weights 'gone.h5': expected" in err
    assert "extractor__" not in err


def test_engine_without_package_names_its_cure(run, photos, monkeypatch):
    monkeypatch.setattr("featx._extractor_validation.missing_packages", lambda engine: ["tf2onnx"])
    code, _, err = run("cv", photos, "--engine", "onnx", "-q")
    assert code == CODES["input"]
    cure = "expected tf2onnx to be installed: pip install 'featx[onnx]'."
    assert f"--engine 'onnx': {cure}" in err


def test_unknown_backbone_names_the_listing_command(run, photos):
    _, _, err = run("cv", photos, "--backbone", "mobilnet", "-q")
    assert "--backbone 'mobilnet': neither the name of a network" in err
    assert "`featx backbones` list all" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("cache", "evict"),
        ("cache", "evict", "--max-bytes", "-5"),
        ("cache", "evict", "--older-than", "-3d"),
        ("cache", "info", "--cache", "none"),
        ("cache", "verify", "--sample", "-5"),
        ("cv", "photos", "--folds", "1"),
        ("cv", "photos", "--seed", "-3"),
        ("fit", "photos", "--out", "m.featx", "--seed", "-1"),
        ("fit", "photos", "--out", "m.featx", "--seed", "4294967296"),
    ],
    ids=" ".join,
)
def test_impossible_options_are_wrong_usage(arguments, run, cache_folder):
    cache_folder.mkdir()
    code, _, err = run(*arguments)
    assert code == 2
    assert arguments[-2] in err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("fit", "", "--out", "m.featx"), "FOLDER|TABLE"),
        (("fit", "p", "--out", ""), "--out"),
        (("fit", "p", "--out", "m.featx", "--cache", ""), "--cache"),
        (("cv", "p", "--weights", ""), "--weights"),
        (("extract", "p", "--out="), "--out"),
        (("predict", "", "p"), "MODEL"),
        (("predict", "m.featx", "p", ""), "IMAGES..."),
        (("predict", "m.featx", "p", "--cache="), "--cache"),
        (("evaluate", "m.featx", ""), "FOLDER|TABLE"),
        (("export", "m.featx", ""), "OUT"),
        (("demo", "--out", ""), "--out"),
        (("cache", "info", "--cache", ""), "--cache"),
        (("cache", "import", "--cache", "", "p"), "--cache"),
        (("cache", "import", ""), "PATH"),
        (("cache", "export", ""), "PATH"),
        (("cache", "export", "r.npz", "--folder", ""), "--folder"),
        (("cache", "verify", "--sample", "1", "--folder", ""), "--folder"),
    ],
)
def test_empty_path_is_wrong_usage(arguments, name, run, photos, monkeypatch):
    monkeypatch.chdir(photos)  # which an empty path would name
    code, _, err = run(*arguments)
    assert (code, f"Invalid value for '{name}': '' is an empty path" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fit", "p", "--out", "m", "--head", "knn", "--head", "ridge"), "--head is given 2 times"),
        (("fit", "p", "--out", "m", "--out=n"), "--out is given 2 times"),
        (
            ("fit", "p", "--out", "m", "--fine-tune", "1", "--fine-tune", "1"),
            "--fine-tune is given",
        ),
        (("extract", "p", "--out", "m.npz", "--cache", "a", "--cache", "a"), "--cache is given"),
        (("cv", "p", "--folds", "2", "--seed", "1", "--folds", "3", "--folds", "4"), "3 times"),
        (("predict", "m", "x", "--on-error", "nan", "--on-error", "raise"), "--on-error is given"),
        (("cache", "info", "--cache", "a", "--cache", "b"), "--cache is given 2 times"),
        (("cache", "export", "x", "--format", "h5", "--format", "npz"), "--format is given"),
        (
            ("extract", "p", "--out", "m.npz", "--param", "a=1", "--param", "a=2"),
            "'a' is given twice",
        ),
        (
            (
                "fit",
                "p",
                "--out",
                "m",
                "--fine-tune",
                "1",
                "--tune",
                "epochs=1",
                "--tune",
                "epochs=2",
            ),
            "'epochs' is given twice",
        ),
        (("extract", "p", "--out", "m.npz", "--param", 'a={"b": 1, "b": 2}'), "'b' is given twice"),
        (("extract", "p", "--out", "m.npz", "--param", "a={'b': 1, 'b': 2}"), "'b' is given twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_option_given_twice_is_wrong_usage(arguments, expected, run, cache_folder):
    cache_folder.mkdir()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert expected in err


def test_fit_too_many_blocks_raises_before_pass(run, photos, tmp_path):
    options = ("--backbone", "tiny", "--fine-tune", 99, "-q")
    code, _, err = run("fit", photos, "--out", tmp_path / "m.featx", *options)
    assert code == CODES["input"]
    assert re.search(r"error: --fine-tune 99: tiny has \d blocks: expected 1 to \d, or 'all'", err)
    assert EmbeddingCache().info()["n_rows"] == 0


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("tiny:input_size=big", "input_size=big: expected an integer"),
        ("tiny:layer=stage1,layer=stage2", "'layer' is given twice"),
        ("tiny:alpha=1,alpha=2", "'alpha' is given twice"),
    ],
)
def test_faulty_options_of_backbone_are_usage(run, photos, backbone, message):
    code, _, err = run("cv", photos, "--backbone", backbone, "-q")
    assert (code, message in " ".join(err.split())) == (2, True)


def test_option_of_backbone_overrides_shared_one(run, photos):
    own = ("--backbone", "tiny", "--backbone", "tiny:layer=stage3,input_size=64,pooling=max")
    arguments = ("--layer", "stage2", "--head", "knn", "--folds", 2, "-q", "--json")
    code, text, err = run("cv", photos, *own, *arguments)
    assert code == 0, err
    passes = json.loads(text)["embedding"]
    assert [each["backbone"] for each in passes] == [
        "tiny/stage2",
        "tiny/stage3 (input_size=64, max)",
    ]
