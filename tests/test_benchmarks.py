"""The benchmarks run, and what they compare computes the same."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_bench_cv_smoke_counts_passes_and_agrees(tmp_path):
    methods = ["floor", "search", "featx cold", "featx warm", "pipeline", "memory"]
    if importlib.util.find_spec("scikeras"):
        methods.append("scikeras")
    out = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "bench_cv.py", "--smoke", "--out", out]
    command += ["--shared", tmp_path / "none", "--methods", *methods]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = {method: results[0] for method, results in json.loads(out.read_text())["runs"].items()}
    passes = {method: run["passes"] for method, run in runs.items()}
    assert passes | {"scikeras": 0} == {
        "floor": 40,
        "search": 0,
        "featx cold": 40,
        "featx warm": 0,
        "pipeline": 200,
        "memory": 160,
        "scikeras": 0,
    }
    scores = [run["score"] for method, run in runs.items() if method != "scikeras"]
    assert max(scores) - min(scores) <= 0.05


@pytest.mark.slow
def test_bench_accuracy_smoke_embeds_each_image_once(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "bench_accuracy.py", "--smoke", "--out", out]
    command += ["--shared", tmp_path / "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())
    assert (row["set"], row["network"], row["n_forward"]) == ("digits", "tiny", 1797)
    assert row["scaled"] > 0.97


@pytest.mark.slow
def test_bench_cache_smoke_measures_everything(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "bench_cache.py", "--smoke", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert all(value > 0 for value in result["seconds"].values())
    assert [line["rows"] for line in result["growth"]] == [10, 100, 1000]


@pytest.mark.slow
def test_bench_extract_smoke_measures_everything(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "bench_extract.py", "--smoke", "--out", out]
    command += ["--shared", tmp_path / "none", "--sections", "growth", "warm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [row["n_forward"] for row in result["growth"]] == [64, 256]
    assert result["warm"]["share"] < 1
