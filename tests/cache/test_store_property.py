"""The store against a dict, over random sequences of operations and damage."""

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from cache_worker import keys_of, open_store, rows_folder, rows_of, small_blocks
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from featx import EmbeddingCache
from featx.cache.maintenance import choose_evictions, compact, remove_shards
from featx.cache.shard import open_shard
from featx.exceptions import CacheDamageWarning, MissingRowsError, ParameterError

N_NUMBERS = 30
NUMBERS = st.lists(st.integers(0, N_NUMBERS - 1), min_size=1, max_size=12)


@contextlib.contextmanager
def damage_allowed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheDamageWarning)
        yield


class StoreMachine(RuleBasedStateMachine):
    """Whatever is done: what is found is right, and what nothing happened to is found."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = open_store(self.folder)
        # Keys of rows that are stored and to which nothing happened.
        self.certain = set()

    def forget(self, data):
        """Expect nothing any more of the rows of a shard that is about to be damaged."""
        for key in open_shard(data.with_suffix(".index")).keys.tolist():
            self.certain.discard(key)

    @rule(numbers=NUMBERS)
    def append(self, numbers):
        self.store.append(keys_of(numbers), rows_of(numbers))
        self.certain |= set(keys_of(numbers).tolist())

    @rule(numbers=NUMBERS)
    def find(self, numbers):
        self.look_up(np.array(numbers))

    @rule()
    def reopen(self):
        self.store = open_store(self.folder)

    @rule()
    def compact(self):
        with damage_allowed():
            compact(self.store)

    @rule()
    def clear(self):
        EmbeddingCache(self.folder).clear()
        self.certain.clear()

    @rule()
    def verify_and_repair(self):
        with damage_allowed():
            EmbeddingCache(self.folder).verify(repair=True)
            assert EmbeddingCache(self.folder).verify()["damaged"] == {}

    @rule()
    def export_and_import(self):
        """Into the same cache: nothing comes of it, and nothing is lost."""
        with damage_allowed(), contextlib.suppress(ParameterError, MissingRowsError):
            EmbeddingCache(self.folder).export(self.folder / "rows.h5")
            before = len(self.store.keys())
            assert EmbeddingCache(self.folder).import_(self.folder / "rows.h5")[1:] == (0, 0)
            assert len(self.store.keys()) == before

    @rule(data=st.data())
    def evict(self, data):
        with damage_allowed():
            limit = data.draw(st.integers(0, 20_000))
            for store, shards in choose_evictions(
                [self.store], {}, max_bytes=limit, older_than=None
            ):
                for shard in shards:
                    for key in shard.keys.tolist():
                        self.certain.discard(key)
                remove_shards(store, shards)

    @rule(data=st.data())
    def flip_a_bit(self, data):
        self.damage(data, lambda content, place: content[place] ^ 4)

    @rule(data=st.data())
    def cut_off(self, data):
        self.damage(data, None)

    def damage(self, data, change):
        files = sorted(rows_folder(self.folder).glob("shard-*.h5"))
        whole = [file for file in files if file.with_suffix(".index").exists()]
        if not whole:
            return
        file = data.draw(st.sampled_from(whole))
        with damage_allowed():
            self.forget(file)
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if change:
            content[place] = change(content, place)
            file.write_bytes(content)
        else:
            file.write_bytes(content[:place])

    @invariant()
    def every_row_is_right_and_certain_ones_are_there(self):
        self.look_up(np.arange(N_NUMBERS))

    def look_up(self, numbers):
        with damage_allowed():
            rows, found = self.store.find(keys_of(numbers))
        np.testing.assert_array_equal(rows[found], rows_of(numbers[found]))
        assert np.isnan(rows[~found]).all()
        missing = keys_of(numbers[~found]).tolist()
        assert not self.certain & set(missing)

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.parametrize(
    "n_examples", [8, pytest.param(500, marks=pytest.mark.long)], ids="{} sequences".format
)
def test_store_agrees_with_dict(n_examples):
    run = settings(max_examples=n_examples, stateful_step_count=20, deadline=None, database=None)
    with small_blocks():
        run_state_machine_as_test(StoreMachine, settings=run)
