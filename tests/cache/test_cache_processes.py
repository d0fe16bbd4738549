"""One cache, many processes and threads: nobody waits, nobody loses, nobody gets a wrong row."""

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cache_worker import find_ten, keys_of, open_store, reported, rows_of, start_worker, store_ten
from sklearn.model_selection import GridSearchCV

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier
from featx.cache.maintenance import compact


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_find_rows_of_each_other(method, tmp_path):
    context = multiprocessing.get_context(method)
    store_ten(tmp_path, 0)
    answers = context.Queue()
    workers = [
        context.Process(target=store_ten, args=(tmp_path, 10)),
        context.Process(target=find_ten, args=(tmp_path, 0, answers)),
    ]
    for worker in workers:
        worker.start()
    assert answers.get(timeout=60)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    numbers = np.arange(20)
    rows, found = open_store(tmp_path).find(keys_of(numbers))
    assert found.all()
    np.testing.assert_array_equal(rows, rows_of(numbers))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, (24, 64, 64, 3), dtype=np.uint8)
    images[::2] += 200
    return images


def test_grid_search_in_processes_shares_cache(images, tmp_path):
    labels, cache = np.arange(24) % 2, EmbeddingCache(tmp_path)
    extractor = FeatureExtractor("tiny", cache=cache)
    extractor.fit_transform(images)
    classifier = TransferClassifier(extractor)
    search = GridSearchCV(classifier, {"head__C": [0.1, 1, 10]}, cv=3, n_jobs=2)
    assert search.fit(images, labels).best_score_ == 1
    assert search.best_estimator_.report_.n_forward == 0
    assert cache.info()["n_forward"] == 24


@pytest.mark.long
def test_grid_search_in_processes_fills_cache(images, tmp_path):
    labels, cache = np.arange(24) % 2, EmbeddingCache(tmp_path)
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=cache))
    search = GridSearchCV(classifier, {"head__C": [0.1, 1]}, cv=2, n_jobs=2)
    assert search.fit(images, labels).best_score_ == 1
    info = cache.info()
    assert info["n_rows"] == 24
    assert info["n_forward"] <= 2 * 24  # each worker may have computed what the other did


def test_find_while_another_process_compacts(tmp_path):
    for first in range(0, 1000, 50):
        numbers = np.arange(first, first + 50)
        open_store(tmp_path).append(keys_of(numbers), rows_of(numbers))
    reader = start_worker("read", tmp_path, "--seconds", 2)
    for _ in range(10):
        store_ten(tmp_path, 0)
        compact(open_store(tmp_path))
    output, warned = reader.communicate()
    assert (reader.returncode, warned) == (0, "")
    n_rounds, rest = divmod(int(output), 1000)
    assert (n_rounds > 0, rest) == (True, 0)


def test_find_and_append_while_another_process_clears(tmp_path):
    workers = [start_worker(job, tmp_path, "--seconds", 2) for job in ("read", "write")]
    code = (
        "import sys, time\n"
        "from featx import EmbeddingCache\n"
        "for _ in range(400):\n"
        "    EmbeddingCache(sys.argv[1]).clear()\n"
        "    time.sleep(0.005)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    (_, warned), (written, failed) = [worker.communicate() for worker in workers]
    assert (warned, failed) == ("", "")
    assert [worker.returncode for worker in workers] == [0, 0]
    assert reported(written.splitlines(keepends=True))


def test_threads_embed_at_once(images, tmp_path):
    """Threads share one store, one file index and one network."""
    cache = EmbeddingCache(tmp_path)
    reference = FeatureExtractor("tiny", cache=None).fit_transform(images)
    barrier = threading.Barrier(4)

    def embed(number):
        barrier.wait()
        order = np.random.default_rng(number).permutation(24)
        rows = FeatureExtractor("tiny", cache=cache, batch_size=5).fit_transform(images[order])
        return np.abs(rows - reference[order]).max()

    with ThreadPoolExecutor(4) as threads:
        gaps = list(threads.map(embed, range(4)))
    assert max(gaps) <= 1e-4 * np.abs(reference).max()
    assert cache.info()["n_rows"] == 24


def test_threads_append_large_shards(tmp_path):
    store = open_store(tmp_path)

    def append(first):
        numbers = np.arange(first, first + 20_000)
        store.append(keys_of(numbers), rows_of(numbers))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(append, range(0, 160_000, 20_000)))
    numbers = np.arange(160_000)
    rows, found = store.find(keys_of(numbers))
    assert found.all()
    np.testing.assert_array_equal(rows, rows_of(numbers))
