"""Files inspected by a child process: whatever they do to it, there is an answer."""

import json

import numpy as np
import pytest

from featx.cache import hdf5_child_process
from featx.cache.hdf5_checks import read_layout
from featx.cache.hdf5_child_process import answer_inspections, inspect_shards
from featx.cache.schema import ShardLayout
from featx.cache.shard import write_shard
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space

SPACE = Space({"graph": "ab12", "feature_shape": [6], "dtype": "float32"})


@pytest.fixture
def shard(tmp_path):
    keys = keys_from_matrix(np.arange(64, dtype=np.uint8).reshape(4, 16))
    return write_shard(tmp_path, keys, np.ones((4, 6), np.float32), space=SPACE).path


def test_inspect_shards_answers_in_order(shard, tmp_path):
    (tmp_path / "foreign.h5").write_bytes(b"not HDF5")
    layout, fault, missing = inspect_shards([shard, tmp_path / "foreign.h5", tmp_path / "none.h5"])
    assert layout == read_layout(shard)
    assert "not a sound shard" in fault.reason
    assert (fault.is_damage, missing.is_damage) == (True, False)


ABORTS_AT_THE_SECOND = """
import os
import featx.cache.hdf5_child_process as inspection

def answer(lines, real=inspection.answer_inspections):
    for line in lines:
        if "second" in line:
            os.abort()
        yield from real([line])

inspection.answer_inspections = answer
inspection.main()
"""
DIES_ONCE = """
import os
from pathlib import Path
import featx.cache.hdf5_child_process as inspection

if not Path({mark!r}).exists():
    Path({mark!r}).touch()
    print("ready", flush=True)
    os.abort()
inspection.main()
"""
HANGS = """
import time
print("ready", flush=True)
print('"half an ans', end="", flush=True)
time.sleep(60)
"""


def be_child(monkeypatch, tmp_path, code):
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setattr(hdf5_child_process, "_COMMAND", (str(tmp_path / "child.py"),))


def test_inspect_shards_dying_child_blames_its_file(shard, monkeypatch, tmp_path):
    be_child(monkeypatch, tmp_path, ABORTS_AT_THE_SECOND)
    first, fault, last = inspect_shards([shard, tmp_path / "second.h5", shard])
    assert first == last == read_layout(shard)
    assert fault == ("not a sound shard: libhdf5 ended with -6 while opening it", True)


def test_inspect_shards_hanging_child_is_ended(shard, monkeypatch, tmp_path):
    be_child(monkeypatch, tmp_path, HANGS)
    monkeypatch.setattr(hdf5_child_process, "_STARTUP_S", 2)
    monkeypatch.setattr(hdf5_child_process, "_SECONDS_PER_FILE", 1)
    (fault,) = inspect_shards([shard])
    assert fault == ("not a sound shard: libhdf5 hung while opening it", True)


def test_inspect_shards_child_dying_once_is_retried(shard, monkeypatch, tmp_path):
    code = DIES_ONCE.format(mark=str(tmp_path / "mark"))
    be_child(monkeypatch, tmp_path, code)
    assert inspect_shards([shard, shard]) == [read_layout(shard)] * 2


def test_inspect_shards_without_child_is_no_damage(shard, monkeypatch):
    monkeypatch.setattr(hdf5_child_process, "_COMMAND", ("-c", "raise SystemExit(3)"))
    for fault in inspect_shards([shard, shard]):
        assert "no process can be started" in fault.reason
        assert not fault.is_damage


def test_inspect_shards_imports_nothing_from_working_directory(shard, monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    assert inspect_shards([shard]) == [read_layout(shard)]


def test_answer_gives_one_json_line_each(shard):
    paths = (shard, shard.parent)
    found, fault = answer_inspections([json.dumps(["shard", str(path)]) for path in paths])
    assert ShardLayout.from_json(json.loads(found)) == read_layout(shard)
    assert json.loads(fault)["is_damage"]
