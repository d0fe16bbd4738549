"""The benchmarks run, and what they compare computes the same.

The gate only sees that each starts; their smoke runs, a minute each, are long forms.
"""

import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.filterwarnings("default")  # what others' packages warn of


@pytest.fixture(autouse=True)
def same_environment():
    """Undo what a benchmark sets for its process, such as another backend of Keras."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def result_of(tmp_path, monkeypatch):
    """Run a benchmark in smoke form, here, where TensorFlow is loaded; return what it writes."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")

    def run(script, *arguments):
        out = tmp_path / "result.json"
        argv = [script, "--smoke", "--out", out, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        return json.loads(out.read_text())

    return run


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("bench_*.py")))
def test_benchmark_help_names_its_options(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    assert "--smoke" in capsys.readouterr().out


PEERS = ["search", "pipeline", "memory"]
if importlib.util.find_spec("scikeras"):
    PEERS.append("scikeras")


@pytest.mark.long
@pytest.mark.parametrize("peers", [[], PEERS], ids=str)
def test_bench_cv_smoke_counts_passes_and_agrees(result_of, peers, tmp_path):
    methods = ["floor", "featx cold", "featx warm", *peers]
    arguments = ["--shared", tmp_path / "none", "--methods", *methods]
    result = result_of("bench_cv.py", *arguments)
    runs = {method: results[0] for method, results in result["runs"].items()}
    passes = {method: run["passes"] for method, run in runs.items()}
    expected = {
        "floor": 40,
        "search": 0,
        "featx cold": 40,
        "featx warm": 0,
        "pipeline": 200,
        "memory": 160,
        "scikeras": 0,
    }
    assert passes == {method: expected[method] for method in methods}
    scores = [run["score"] for method, run in runs.items() if method != "scikeras"]
    assert max(scores) - min(scores) <= 0.05


@pytest.mark.long
def test_bench_heads_smoke_scores_as_scikit_learn_does(result_of, tmp_path):
    results = result_of("bench_heads.py")
    ridge, linear = results["ridge"], results["linear"]
    assert ridge["score"] == pytest.approx(ridge["score of cross_val_score"])
    assert linear["largest difference of a score"] <= 0.02  # two of a hundred samples


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", ["2", "1"])
def test_bench_search_smoke_embeds_each_photo_once(result_of, n_jobs, tmp_path):
    arguments = ["--n-jobs", n_jobs, "--shared", tmp_path / "none"]
    for jobs in result_of("bench_search.py", *arguments)["runs"].values():
        (ready,), (featx,) = jobs["ready"], jobs["featx"]
        assert featx["n_passes"] == 40
        assert featx["n_candidates"] == ready["n_candidates"] == 36
        gaps = np.subtract(featx["scores"], ready["scores"])
        assert np.abs(gaps).mean() <= 0.01  # candidate by candidate; the graphs round differently


@pytest.mark.long
def test_bench_accuracy_smoke_embeds_each_image_once(result_of, tmp_path):
    (row,) = result_of("bench_accuracy.py", "--shared", tmp_path / "none")
    assert (row["set"], row["network"], row["n_forward"]) == ("digits", "tiny", 1797)
    assert row["scaled"] > 0.97


@pytest.mark.long
def test_bench_label_issues_smoke_finds_turned_labels(result_of, tmp_path):
    results = result_of("bench_label_issues.py", "--shared", tmp_path / "none")
    (row,) = results["quality"]
    assert row["suspects"] > 0.8
    assert row["suggested"] > 0.8
    (size,) = results["size"].values()
    assert size["seconds"] > 0


@pytest.mark.long
def test_bench_cache_smoke_measures_everything(result_of, tmp_path):
    result = result_of("bench_cache.py")
    assert all(value > 0 for value in result["seconds"].values())
    assert [line["rows"] for line in result["growth"]] == [10, 100, 1000]


@pytest.mark.long
def test_bench_listing_smoke_measures_everything(result_of):
    results = result_of("bench_listing.py")["results"]
    assert list(results) == ["50", "200"]
    assert all(row["microseconds"] > 0 for ways in results.values() for row in ways.values())


@pytest.mark.long
def test_bench_extract_smoke_measures_everything(result_of, tmp_path):
    result = result_of("bench_extract.py", "--shared", tmp_path / "none")
    (arrays,) = result["arrays"]
    assert {"model.predict", "bare loop", "featx, keras"} <= set(arrays["images/s"])
    for section in ("folder", "taps"):
        assert all(min(row["images/s"].values()) > 0 for row in result[section].values())
    assert min(result["peers"]["images/s"].values()) > 0


@pytest.mark.long
@pytest.mark.stores_graphs
@pytest.mark.parametrize("section", ["warm", "growth", "start"])
def test_bench_processes_smoke_measures_everything(result_of, section, tmp_path):
    result = result_of("bench_processes.py", "--shared", tmp_path / "none", "--sections", section)
    if section == "growth":
        assert [row["n_forward"] for row in result["growth"]] == [64, 256]
    elif section == "start":
        assert result["start"]["extractor, auto"]["seconds / Keras"] < 1
    else:
        assert result["warm"]["share"] < 1


@pytest.mark.long
@pytest.mark.parametrize(
    "section",
    ["accuracy", "epoch", "search"],
)
def test_bench_finetune_smoke_measures_everything(result_of, section, tmp_path):
    result = result_of("bench_finetune.py", "--shared", tmp_path / "none", "--sections", section)[
        section
    ]
    if section == "accuracy":
        (row,) = result.values()
        assert set(row["mean"]) == {"head", "tuned", "random head"}
        assert row["minutes"] > 0
    elif section == "epoch":
        assert all(row["featx / bare loop"] > 0 for row in result.values())
    else:
        assert set(result["n_forward"].values()) == {80}


@pytest.mark.long
def test_bench_views_smoke_scores_every_method_on_the_same_splits(result_of, tmp_path):
    options = ("--shared", tmp_path / "none", "--sections", "accuracy")
    sizes = result_of("bench_views.py", *options)["accuracy"]["digits"]
    assert set(sizes) == {"few", "most"}
    for methods in sizes.values():
        assert set(map(len, methods.values())) == {2}
        assert np.mean(methods["no views"]) > 0.7


@pytest.mark.long
def test_bench_views_smoke_tells_what_a_view_costs(result_of, tmp_path):
    options = ("--shared", tmp_path / "none", "--sections", "seconds")
    found = result_of("bench_views.py", *options)["seconds"]
    assert found["n_forward"] == {"no views": 20, "standard": 40}
    without, several = found["seconds"]["no views"], found["seconds"]["standard"]
    assert found["a view / an image"] == pytest.approx(several / without - 1)


@pytest.mark.long
def test_bench_image_checks_smoke_finds_changed_images(result_of, tmp_path):
    found = result_of("bench_image_checks.py", "--shared", tmp_path / "none")["digits"]
    issues = ("dark", "bright", "low contrast", "tiny", "odd shape")
    assert [found[issue] for issue in issues] == [[0, 1.0]] * 5


@pytest.mark.long
def test_bench_duplicates_smoke_finds_smaller_copies(result_of, tmp_path):
    alone, by_pixels = result_of("bench_duplicates.py", "--shared", tmp_path / "none")
    assert alone["smaller"] == 1.0
    assert alone["mirrored"] < 1.0
    assert by_pixels["mirrored"] > alone["mirrored"]


@pytest.mark.long
def test_bench_report_smoke_makes_a_page(result_of, tmp_path):
    found = result_of("bench_report.py", "--shared", tmp_path / "none")["report"]["60 images"]
    assert found["forward passes"] == 0
    assert 0.1 < found["page, MB"] < 10


@pytest.mark.long
@pytest.mark.parametrize(
    "head",
    ["RidgeProbe", "LinearProbe", "PCA"],
)
def test_bench_streaming_smoke_fits_more_rows_than_are_held(result_of, head, tmp_path):
    result = result_of("bench_streaming.py", "--work", tmp_path, "--heads", head)[head]
    assert result["rows_bytes"] > 2**28
    if head != "PCA":
        assert result["score"] > 0.3  # of ten classes


@pytest.mark.long
def test_bench_service_smoke_measures_everything(result_of, tmp_path):
    result = result_of("bench_service.py")
    assert len(result["rows"]) == 10
    assert all(row["p99, ms"] >= row["p50, ms"] > 0 for row in result["rows"])
    assert set(result["ratios"]["files, cache"]) == {
        "many threads / one",
        "p99 / p50",
        "growth, MiB",
    }


@pytest.mark.long
def test_bench_service_five_minutes_keep_memory_and_shards(result_of):
    found = result_of("bench_service.py", "--minutes", 5)["long"]
    assert found["end, MiB"] - found["start, MiB"] <= 100
    assert found["shards"] <= 32


@pytest.mark.long
def test_bench_sources_smoke_reads_all_ways(result_of, tmp_path):
    seconds = result_of("bench_sources.py", "--shared", tmp_path / "none")["seconds"]
    assert list(seconds) == ["folder", "zip", "tar", "server", "loop"]
