"""Files of a cache with valid checksums and impossible contents: right rows or a warning."""

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
from cache_worker import SPACE, keys_of, open_store, rows_folder, rows_of, small_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from featx import EmbeddingCache
from featx._files import seal, unseal
from featx.cache.facts import FactStore
from featx.cache.shard import DamagedShardError, open_shard
from featx.cache.usage import USAGE_FILE, note_use, read_usage
from featx.digests.key_table import KEY_DTYPE, keys_from
from featx.exceptions import CacheDamageWarning
from featx.inputs.file_index import FileIndex

MAGIC = b"featx-shard-index-4\n"
N_ROWS = 12


def mutations(n_examples):
    """Run a test on as many random changes, the same each time."""
    return settings(max_examples=n_examples, deadline=None, database=None, derandomize=True)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A store of one shard."""
    folder = tmp_path_factory.mktemp("pristine")
    with small_blocks():
        open_store(folder).append(keys_of(range(N_ROWS)), rows_of(range(N_ROWS)))
    return folder


def index_of(folder):
    return next(rows_folder(folder).glob("*.index"))


def parts_of(folder):
    """Return the header of the index, and its arrays."""
    header, _, arrays = unseal(index_of(folder).read_bytes())[len(MAGIC) :].partition(b"\n")
    return json.loads(header), arrays


def check_rows(folder):
    """Open the shard by its index: it is refused, or each row that passes its checksum is right."""
    try:
        shard = open_shard(index_of(folder))
    except DamagedShardError:
        return
    embeddings, sound = shard.read_all()
    assert shard.times_s[0] <= shard.times_s[1]
    if shard.space.digest == SPACE.digest:
        numbers = {key: number for number, key in enumerate(keys_of(range(N_ROWS)).tolist())}
        for key, row in zip(shard.keys[sound].tolist(), embeddings[sound], strict=True):
            # A changed key is another row's, which nobody looks up.
            np.testing.assert_array_equal(
                row, rows_of([numbers[key]])[0] if key in numbers else row
            )


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, N_ROWS, 2**31, 2**44, 2**62, 2**63, 2**64, 10**30]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 2**65) | st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
FIELDS = ["shape", "dtype", "offset", "rows_of_a_block", "frame", "times_s", "space"]


@pytest.mark.parametrize("n", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_open_shard_changed_fields_give_right_rows(n, pristine, tmp_path):
    header, arrays = parts_of(pristine)
    copy = fresh_copy(pristine, tmp_path)

    @mutations(n)
    @given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=2))
    def check(changes):
        payload = MAGIC + json.dumps({**header, **changes}).encode() + b"\n" + arrays
        index_of(copy).write_bytes(seal(payload))
        check_rows(copy)

    check()


@pytest.mark.parametrize("n", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_open_shard_changed_bytes_give_right_rows(n, pristine, tmp_path):
    payload = unseal(index_of(pristine).read_bytes())
    places = st.integers(0, len(payload) - 1)
    copy = fresh_copy(pristine, tmp_path)

    @mutations(n)
    @given(places, st.binary(max_size=9), st.integers(0, 9))
    def check(place, new, n_removed):
        index_of(copy).write_bytes(seal(payload[:place] + new + payload[place + n_removed :]))
        check_rows(copy)

    check()


def fresh_copy(pristine, tmp_path):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pristine, copy)
    return copy


SENSELESS = {
    "negative offset": {"offset": -4},
    "huge offset": {"offset": 10**30},
    "no rows": {"shape": [0, 64]},
    "negative rows": {"shape": [-3, 64]},
    "huge rows": {"shape": [10**15, 64]},
    "no features": {"shape": [N_ROWS, 0]},
    "other features": {"shape": [N_ROWS, 63]},
    "objects": {"dtype": "object"},
    "other dtype": {"dtype": "float16"},
    "no blocks": {"rows_of_a_block": 0},
    "negative blocks": {"rows_of_a_block": -4},
    "no times": {"times_s": []},
    "times of nothing": {"times_s": [float("nan"), float("inf")]},
    "far future": {"times_s": [0, 1e18]},
    "no space": {"space": 3},
}


def change_header(copy, changes):
    header, arrays = parts_of(copy)
    payload = MAGIC + json.dumps({**header, **changes}).encode() + b"\n" + arrays
    index_of(copy).write_bytes(seal(payload))


@pytest.mark.parametrize("changes", SENSELESS.values(), ids=SENSELESS)
def test_open_shard_senseless_index_is_damage(changes, pristine, tmp_path):
    copy = fresh_copy(pristine, tmp_path)
    change_header(copy, changes)
    with pytest.raises(DamagedShardError, match="is inconsistent"):
        open_shard(index_of(copy))


@pytest.mark.parametrize(
    ("changes", "n_found"),
    [
        ({"offset": 2**40}, N_ROWS),
        ({"offset": 2**20}, 0),
        ({"offset": 8}, 0),
        ({"offset": 10**30}, N_ROWS),
    ],
)
def test_find_senseless_index_is_one_warning(changes, n_found, pristine, tmp_path):
    """Rows that are not where the index says are lost; an impossible index is rebuilt."""
    copy = fresh_copy(pristine, tmp_path)
    change_header(copy, changes)
    numbers = np.arange(N_ROWS)
    with pytest.warns(CacheDamageWarning) as caught:
        rows, found = open_store(copy).find(keys_of(numbers))
    assert len(caught) == 1
    assert found.sum() == n_found
    np.testing.assert_array_equal(rows[found], rows_of(numbers[found]))
    assert open_store(copy).find(keys_of(numbers))[1].sum() == n_found


@pytest.mark.parametrize("n_bytes", [10**10, 10**13])
def test_open_shard_huge_index_raises(n_bytes, pristine, tmp_path):
    copy = fresh_copy(pristine, tmp_path)
    with open(index_of(copy), "r+b") as file:
        file.truncate(n_bytes)
    with pytest.raises((DamagedShardError, OSError)):
        open_shard(index_of(copy))


def test_open_shard_huge_rows_raise(pristine, tmp_path):
    copy = fresh_copy(pristine, tmp_path)
    space = parts_of(copy)[0]["space"]
    space["identity"]["feature_shape"] = [2**38]
    change_header(copy, {"space": space, "shape": [N_ROWS, 2**38]})
    with pytest.raises(DamagedShardError, match="is inconsistent"):
        open_shard(index_of(copy))


@pytest.mark.parametrize("part", ["spaces", "notes", "files", "damaged"])
@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_cache_irregular_part_is_never_followed(kind, part, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "cache"
    elsewhere.mkdir()
    folder.mkdir()
    make = {
        "link": lambda path: path.symlink_to(elsewhere),
        "file": lambda path: path.touch(),
        "pipe": os.mkfifo,
    }
    make[kind](folder / part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheDamageWarning)
        cache = EmbeddingCache(folder)
        cache.info()
        cache.facts.remember({"a": 1}, 2)
        cache.files.add(b"k" * 16, b"d" * 16, modified_s=0)
        cache.files.flush()
        open_store(folder).append(keys_of(range(3)), rows_of(range(3)))
    assert EmbeddingCache(folder).facts.recall({"a": 1}) == 2
    assert open_store(folder).find(keys_of(range(3)))[1].all()
    assert not list(elsewhere.iterdir())


def test_find_linked_space_is_quarantined(pristine, tmp_path):
    (tmp_path / "spaces").mkdir()
    (rows_folder(tmp_path)).symlink_to(rows_folder(pristine))
    assert EmbeddingCache(tmp_path).info()["n_rows"] == 0
    with pytest.warns(CacheDamageWarning, match="is not a folder, or a link"):
        assert not open_store(tmp_path).find(keys_of(range(3)))[1].any()
    assert open_store(pristine).find(keys_of(range(3)))[1].all()


@pytest.mark.parametrize("n", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_read_usage_of_any_bytes(n, tmp_path):
    line = st.one_of(
        st.binary(max_size=30),
        st.tuples(st.integers() | st.floats(), st.integers() | st.floats()).map(
            lambda pair: f"{pair[0]} {pair[1]}".encode()
        ),
    )

    @mutations(n)
    @given(st.lists(line, max_size=5))
    def check(lines):
        (tmp_path / USAGE_FILE).write_bytes(b"\n".join(lines))
        usage = read_usage(tmp_path)
        assert 0 <= usage.n_hits <= 2**53
        assert 0 <= usage.last_used_s <= time.time() + 2 * 24 * 3600
        for _ in range(2):  # the first goes on with a line that was cut off
            note_use(tmp_path, n_hits=1)
        assert read_usage(tmp_path).last_used_s >= time.time() - 60

    check()


def test_info_ignores_usage_from_future(pristine, tmp_path):
    copy = fresh_copy(pristine, tmp_path)
    with open(rows_folder(copy) / USAGE_FILE, "a") as file:
        file.write("17959784631795978463 3\n99999999999 5\n-5 -7\nnan inf\n")
    (space,) = EmbeddingCache(copy).info()["spaces"]
    assert space["n_hits"] == 0
    assert space["last_used"] is not None


def test_read_usage_huge_log_from_end(tmp_path):
    with open(tmp_path / USAGE_FILE, "wb") as file:
        file.truncate(10**11)
        file.seek(0, os.SEEK_END)
        file.write(b"\n1000 5\n")
    assert read_usage(tmp_path) == (5, 1000.0)
    note_use(tmp_path, n_hits=2)
    assert (tmp_path / USAGE_FILE).stat().st_size < 100


@pytest.mark.parametrize("n", [100, pytest.param(5000, marks=pytest.mark.long)])
def test_recall_fact_of_any_bytes(n, tmp_path):
    facts, key = FactStore(tmp_path / "notes"), {"a": 1}
    facts.remember(key, {"b": 2})
    (path,) = facts.folder.iterdir()
    content = path.read_bytes()

    @mutations(n)
    @given(st.integers(0, len(content)), st.binary(max_size=9), st.integers(0, 9))
    def check(place, new, n_removed):
        path.write_bytes(content[:place] + new + content[place + n_removed :])
        assert facts.recall(key) in (None, {"b": 2})

    check()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_recall_irregular_file_is_none(kind, tmp_path):
    facts = FactStore(tmp_path / "notes")
    facts.remember({"a": 1}, 2)
    (path,) = facts.folder.iterdir()
    path.unlink()
    {"pipe": os.mkfifo, "link": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    assert facts.recall({"a": 1}) is None


@pytest.mark.parametrize("n", [150, pytest.param(5000, marks=pytest.mark.long)])
def test_file_index_of_any_bytes_finds_digests(n, tmp_path):
    keys = [bytes([number]) * 16 for number in range(1, 9)]
    payload = b"featx-file-index-1\n" + b"".join(key + key for key in keys)

    @mutations(n)
    @given(st.integers(0, len(payload)), st.binary(max_size=40), st.integers(0, 40), st.booleans())
    def check(place, new, n_removed, is_sealed):
        content = payload[:place] + new + payload[place + n_removed :]
        (tmp_path / "files-x.index").write_bytes(seal(content) if is_sealed else content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheDamageWarning)
            found = FileIndex(tmp_path).find(keys_from(keys, count=len(keys)))
        assert (found.shape, found.dtype) == ((len(keys),), KEY_DTYPE)

    check()
