"""The commands of ``featx cache``: what they print, remove and refuse."""

import contextlib
import fcntl
import json
import os
import struct
import termios
from datetime import UTC, datetime

import pytest
from command_line import CODES

from featx import EmbeddingCache
from featx.cli.output import age_in_words, print_cache


def test_cache_info_compact_evict_export_clear(run, photos, model, tmp_path):
    code, text, _ = run("cache", "info")
    assert code == 0
    assert "12 rows" in text
    _, text, _ = run("cache", "info", "--json")
    assert json.loads(text)["n_rows"] == 12
    assert run("cache", "compact")[1] == "1 shards became 1\n"
    file, copy = tmp_path / "rows.h5", tmp_path / "copy"
    code, text, _ = run("cache", "export", file, "--folder", photos)
    assert (code, text.endswith(f"kB in {file}\n")) == (0, True)
    assert run("cache", "import", file, "--cache", copy)[1].startswith("12 of 12 rows added")
    assert EmbeddingCache(copy).info()["n_rows"] == 12
    code, text, err = run("cache", "clear", "--yes", "--cache", copy)
    assert (code, "12 rows of 1 spaces" in err, text.endswith("kB freed\n")) == (0, True, True)
    assert EmbeddingCache(copy).info()["n_rows"] == 0
    assert run("cache", "evict", "--max-bytes", "1GB")[1] == "0 bytes freed\n"
    assert run("cache", "evict", "--older-than", "30d")[1] == "0 bytes freed\n"
    code, text, err = run("cache", "evict", "--max-bytes", "10 b", "--yes", "--json")
    assert "12 rows of tiny" in err
    assert json.loads(text)[0]["n_rows"] == 12
    assert EmbeddingCache().info()["n_rows"] == 0


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-12-02T11:59:01+00:00", "just now"),
        ("2026-12-02T11:59:00+00:00", "1 minute ago"),
        ("2026-12-02T09:59:00+00:00", "2 hours ago"),
        ("2026-11-30T11:59:00+00:00", "2 days ago"),
        ("2024-01-30T11:59:00+00:00", "2 years ago"),
        (None, ""),
    ],
)
def test_age_in_words_is_largest_unit(time, words):
    assert age_in_words(time, datetime(2026, 12, 2, 12, tzinfo=UTC)) == words


def test_cache_info_has_line_per_space(run, photos, model):
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(terminal, "w") as stream, contextlib.redirect_stdout(stream):
        print_cache(EmbeddingCache().info())
    (line,) = [line for line in os.read(master, 10_000).decode().splitlines() if "12 │" in line]
    os.close(master)
    assert len(line) <= 80
    assert "…" in line


def test_cache_export_several_spaces_needs_space(run, photos, model, tmp_path):
    run("extract", photos, "--out", tmp_path / "m.npz", "--backbone", "tiny", "--layer", "stage3")
    first, second = (space["digest"][:8] for space in EmbeddingCache().info()["spaces"])
    _, text, _ = run("cache", "info")
    assert first in text
    assert second in text
    code, _, err = run("cache", "export", tmp_path / "rows.h5")
    assert code == CODES["input"]
    expected = f"holds 2 spaces: choose one by the first digits of its digest, such as '{first}'"
    assert expected in err
    assert f"; {second} tiny, layer" in err
    assert run("cache", "export", tmp_path / "rows.h5", "--space", second)[0] == 0
    code, _, err = run("cache", "export", tmp_path / "rows.h5", "--space", second)
    assert (code, "pass --force" in err) == (CODES["input"], True)
    code, _, err = run("cache", "export", tmp_path / "rows.h5", "--space", "xyz", "--force")
    assert "error: --space 'xyz': no spaces have a digest that begins so" in err


CACHE_JOBS = (
    ("info",),
    ("verify",),
    ("compact",),
    ("evict", "--max-bytes", "0", "--yes"),
    ("export", "rows.h5"),
    ("clear", "--yes"),
)


@pytest.mark.parametrize("job", CACHE_JOBS, ids=lambda job: job[0])
def test_cache_named_but_missing_is_an_error(job, run, tmp_path, cache_folder):
    code, out, err = run("cache", *job, "--cache", tmp_path / "nosuch")
    assert (code, out) == (CODES["input"], "")
    assert err.startswith(f"error: --cache {tmp_path / 'nosuch'}: there is no such cache")
    code, out, err = run("cache", *job)
    assert (code, out) == (CODES["input"], "")
    assert err.startswith(f"error: FEATX_CACHE={cache_folder}: there is no such cache")


@pytest.mark.parametrize("job", CACHE_JOBS, ids=lambda job: job[0])
def test_cache_folder_of_other_files_is_refused(job, run, photos):
    code, out, err = run("cache", *job, "--cache", photos)
    assert (code, out) == (CODES["input"], "")
    assert "there is no cache in this folder, but other files" in err
    assert len(list(photos.rglob("*.png"))) == 12


def test_cache_default_or_empty_folder_is_sound(run, tmp_path, monkeypatch):
    assert run("cache", "verify", "--cache", tmp_path)[:2] == (0, "all 0 rows are sound\n")
    monkeypatch.delenv("FEATX_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    assert run("cache", "verify")[:2] == (0, "all 0 rows are sound\n")
    assert "0 rows" in run("cache", "info")[1]


@pytest.mark.filterwarnings("default")
def test_cache_verify_damage_is_exit_code_one(run, model):
    code, text, _ = run("cache", "verify")
    assert (code, text) == (0, "all 12 rows are sound\n")
    (shard,) = EmbeddingCache().path.rglob("*.h5")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1  # in the middle of the rows
    shard.write_bytes(data)
    code, text, _ = run("cache", "verify", "--json")
    reason = "1 of 12 rows are damaged"
    assert (code, json.loads(text)["damaged"]) == (1, {str(shard): reason})
    code, text, err = run("cache", "verify", "--repair")
    assert code == 1
    assert f"{shard}: {reason}" in text
    assert err.startswith("CacheDamageWarning: damage in the cache")
    assert run("cache", "verify")[0] == 0


def test_cache_verify_sample_computes_rows_again(run, photos, model):
    options = ("--sample", "3", "--folder", photos, "--backbone", "tiny", "-q")
    code, text, _ = run("cache", "verify", *options)
    assert code == 0
    assert "3 rows computed again: largest relative difference" in text
    code, _, err = run("cache", "verify", "--sample", "3")
    assert (code, "--sample needs --folder" in err) == (2, True)
    code, _, err = run("cache", "verify", "--folder", photos)
    assert (code, "--folder needs --sample" in err) == (2, True)


def test_cache_verify_none_is_wrong_usage(run):
    assert run("cache", "verify", "--cache", "none")[0] == 2


def test_cache_evict_asks_first(run, model, monkeypatch):
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert run("cache", "evict", "--max-bytes", "0")[:2] == (0, "0 bytes freed\n")
    assert EmbeddingCache().info()["n_rows"] == 12


@pytest.mark.parametrize(
    ("option", "expected"), [("--max-bytes", "a size as in 500MB"), ("--older-than", "as in 30d")]
)
@pytest.mark.parametrize("value", ["1 parsec", "MB", "d", "", "-"])
def test_cache_evict_impossible_limit_is_wrong_usage(option, expected, value, run, cache_folder):
    cache_folder.mkdir()
    code, _, err = run("cache", "evict", option, value)
    assert (code, expected in err) == (2, True)


def test_cache_clear_asks_first(run, model, monkeypatch):
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert run("cache", "clear")[:2] == (0, "0 bytes freed\n")
    assert EmbeddingCache().info()["n_rows"] == 12


def test_cache_option_empty_is_refused(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    extract = ("extract", photos, "--backbone", "tiny", "--out", "rows.npz")
    for command in (("cache", "clear", "--yes"), extract):
        code, _, err = run(*command, "--cache", "")
        assert code == 2
        assert "--cache" in err
        assert "'' is an empty path" in err
    assert set(tmp_path.iterdir()) == before
