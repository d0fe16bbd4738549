"""EmbeddingCache: a folder of embeddings that never holds a wrong row.

The folder holds::

    CACHE/spaces/<space digest>/shard-<id>.h5, .index   rows (``store.py``, ``shard.py``)
    CACHE/spaces/<space digest>/usage.log               when they were used (``usage.py``)
    CACHE/notes/<digest>.json                           other facts (``facts.py``)
    CACHE/files/files-<id>.index                        contents of files (``inputs/file_index.py``)
    CACHE/graphs/<space digest>-<digest>.graph          converted networks (``graph_store.py``)
    CACHE/tuning/                                       checkpoints (``finetune/checkpoint.py``)
    CACHE/damaged/                                      quarantined files (``damage.py``)

Missing rows are computed again, so all or parts of a cache may be deleted at any time. Any number
of processes and threads, on one machine or on several that share a file system, may read, write and
compact it at once without a lock. The only assumption is that renaming a file replaces another
atomically, as POSIX, NFS and NTFS guarantee.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from featx._files import check_folder, remove_abandoned_parts
from featx._text import one_line
from featx._validation import as_path
from featx.cache.damage import DamageLog
from featx.cache.exchange import (
    ExportTable,
    Imported,
    add_rows,
    check_rows_export,
    read_shards,
    text_columns,
    write_table,
)
from featx.cache.facts import FactStore, file_fact
from featx.cache.folder import (
    absolute_cache_path,
    check_cache_path,
    clear_parts,
    default_cache_path,
)
from featx.cache.graph_store import GraphStore
from featx.cache.lazy_array import LazyEmbeddings
from featx.cache.maintenance import (
    Eviction,
    Recheck,
    choose_evictions,
    choose_store,
    compact,
    describe_space,
    find_damage,
    folder_bytes,
    recheck_rows,
    remove_shards,
    repair_shards,
    space_of,
    summarize,
)
from featx.cache.shard import Shard
from featx.cache.store import SpaceStore
from featx.digests.space import STORED_DTYPES, Space
from featx.exceptions import InputError, MissingRowsError, ParameterError
from featx.inputs.file_index import FileIndex
from featx.inputs.recognize import as_samples, samples_of_space
from featx.inputs.samples import identify


class EmbeddingCache:
    """A folder of embeddings, shared by any number of processes.

    Pass it, or its path, as the `cache` of a :class:`FeatureExtractor`. Each row, the embedding of
    one sample, is checked when it is read, and computed again if it is damaged. Rows of the same
    backbone, weights and preprocessing are comparable: they form a space, which has a digest, and
    are stored in files called shards. The whole folder may be deleted at any time.

    Parameters
    ----------
    path : str or Path, default=None
        Folder, which is made when something is stored. None is ``$FEATX_CACHE``, or ``featx`` in
        the user's cache folder; an empty string is refused.
    dtype : {"float32", "float16"}, default="float32"
        Dtype in which rows are stored. float16 takes half the space on disk and keeps three digits,
        which is enough for most heads. Such rows have their own space, and are read as float32.

    Attributes
    ----------
    path : Path
        Absolute path of the folder.
    dtype : str
        Dtype in which rows are stored.

    Raises
    ------
    ParameterError
        No folder can have this path, or the dtype is not one of these.

    See Also
    --------
    FeatureExtractor : Extractor that fills a cache, and reads it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from featx import EmbeddingCache, FeatureExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    >>> cache = EmbeddingCache(tempfile.mkdtemp())
    >>> extractor = FeatureExtractor("tiny", cache=cache).fit(images)
    >>> embeddings = extractor.transform(images)
    >>> cache.info()["n_rows"]
    4
    >>> embeddings = extractor.transform(images)  # all of them are read
    >>> extractor.report_.n_hits, extractor.report_.n_forward
    (4, 0)
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, dtype: str = "float32"
    ) -> None:
        if dtype not in STORED_DTYPES:
            raise ParameterError(
                f"dtype={dtype!r}: expected one of {', '.join(map(repr, STORED_DTYPES))}"
            )
        self.path = default_cache_path() if path is None else absolute_cache_path(path)
        check_cache_path(self.path)
        self.dtype = dtype

    def __repr__(self) -> str:
        dtype = "" if self.dtype == STORED_DTYPES[0] else f", dtype={self.dtype!r}"
        return f"EmbeddingCache({str(self.path)!r}{dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingCache) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Path, str]:
        return self.path, self.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), str(self.path), dtype=self.dtype), ()

    def __sklearn_clone__(self) -> EmbeddingCache:
        return self

    @cached_property
    def files(self) -> FileIndex:
        """Digests of the contents of files."""
        return FileIndex(self._part("files"))

    @cached_property
    def facts(self) -> FactStore:
        """Facts such as the space of a backbone, or its best batch size."""
        return FactStore(self._part("notes"))

    @cached_property
    def graphs(self) -> GraphStore:
        """Converted networks, from which a pass starts without Keras."""
        return GraphStore(self._part("graphs"), damaged_folder=self.path / "damaged")

    @cached_property
    def _stores(self) -> dict[str, SpaceStore]:
        return {}

    def store(self, space: Space) -> SpaceStore:
        """Return the store of a space, always the same object, so that indexes stay in memory.

        Parameters
        ----------
        space : Space
            Space of the rows, such as ``extractor.space_``.

        Returns
        -------
        SpaceStore
            Store, from which rows are read and to which they are added.
        """
        if space.digest not in self._stores:
            folder, damaged = self._part("spaces", space.digest), self.path / "damaged"
            self._stores[space.digest] = SpaceStore(folder, space, damaged_folder=damaged)
        return self._stores[space.digest]

    def _part(self, *names: str) -> Path:
        """Return a folder of the cache; quarantine a link or file that has its path."""
        damage = DamageLog(self.path / "damaged", prefix=self.path.name)
        place = self.path
        with damage.reported():
            for name in names:
                place /= name
                try:
                    check_folder(place)
                except NotADirectoryError:
                    damage.quarantine(place, reason="is not a folder, or a link")
        return place

    def info(self) -> dict[str, Any]:
        """Describe what is stored.

        Returns
        -------
        dict
            ``path``; ``n_rows`` (each distinct row of a space once); ``n_forward`` (rows ever
            computed and still kept, duplicates included); ``n_hits`` (rows that were found instead
            of being computed); ``n_shards``; ``size_bytes`` (of the rows on disk); ``graph_bytes``
            (of converted networks, from which a later pass starts without Keras);
            ``damaged_bytes`` (quarantined, until :meth:`clear`); ``spaces``: for each its digest,
            label, ``file`` (name of the saved file that holds its backbone, or None), identity,
            these figures, when its oldest and newest rows were stored, and its last use (UTC, ISO
            8601).
        """
        graph_bytes = self.graphs.sizes()
        spaces = [
            {
                **describe_space(store),
                "file": self.facts.recall(file_fact(store.space.digest)),
                "graph_bytes": graph_bytes.get(store.space.digest, 0),
            }
            for store in self._all_stores()
        ]
        totals = {
            name: sum(space[name] for space in spaces)
            for name in ("n_rows", "n_forward", "n_hits", "n_shards", "size_bytes")
        }
        return {
            "path": str(self.path),
            **totals,
            "graph_bytes": sum(graph_bytes.values()),
            "damaged_bytes": folder_bytes(self.path / "damaged"),
            "spaces": spaces,
        }

    def verify(
        self, repair: bool = False, *, sample: int = 0, extractor: Any = None, X: Any = None
    ) -> dict[str, Any]:
        """Check every row and graph against its checksum; optionally, compute some rows again.

        Parameters
        ----------
        repair : bool, default=False
            True if damaged files are quarantined, and the sound rows in them stored again.
        sample : int, default=0
            Number of rows to compute again, drawn at random from those stored for `X`.
        extractor : FeatureExtractor, default=None
            Extractor that computes them.
        X : samples, default=None
            Samples, in any form that :meth:`FeatureExtractor.transform` takes.

        Returns
        -------
        dict
            ``n_rows`` that were checked; ``damaged``: the fault of each damaged file, by its path;
            ``n_sampled``, ``largest_difference`` (relative, of a row) and ``differing`` (the names
            of samples for which the network now computes other rows).

        Raises
        ------
        ParameterError
            `sample` needs `extractor` and `X`.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from featx import EmbeddingCache, FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> extractor = FeatureExtractor("tiny", cache=cache)
        >>> embeddings = extractor.fit_transform(images)
        >>> found = cache.verify(sample=2, extractor=extractor, X=images)
        >>> found["n_rows"], found["damaged"], found["n_sampled"], found["differing"]
        (4, {}, 2, [])
        """
        if sample < 0 or (sample and (extractor is None or X is None)):
            raise ParameterError(f"sample={sample}: expected 0, or more with an extractor and X")
        stores = self._all_stores()
        damage = {store: find_damage(store) for store in stores}
        n_rows = sum(len(shard) for store in stores for shard in store.shards())
        rechecked = Recheck(0, 0.0, [])
        if sample:
            space = clone(extractor).set_params(cache=self).fit(X).space_
            samples = samples_of_space(X, space.description)
            keys = identify(samples, self.files)
            rechecked = recheck_rows(self.store(space), keys, samples, extractor, n_sampled=sample)
        faulty_graphs = self.graphs.find_damage()
        if repair:
            for store, found in damage.items():
                repair_shards(store, found)
            self.graphs.quarantine(faulty_graphs)
        found_damage = [*damage.values(), faulty_graphs]
        damaged = {str(path): why for found in found_damage for path, why in found.items()}
        return {"n_rows": n_rows, "damaged": damaged, **rechecked._asdict()}

    def compact(self) -> None:
        """Merge small shards into few, dropping rows that are stored twice.

        A pass does this by itself once its space has many shards.

        Raises
        ------
        OSError
            Shards cannot be written; nothing is lost.
        """
        for folder in (self.files.folder, self.facts.folder, self.graphs.folder):
            if folder is not None:
                remove_abandoned_parts(folder)
        self.files.flush()
        for store in self._all_stores():
            compact(store)

    def evictable(
        self, *, max_bytes: int | None = None, older_than: timedelta | None = None
    ) -> list[Eviction]:
        """Return the shards that :meth:`EmbeddingCache.evict` would remove, without removing them.

        Parameters
        ----------
        max_bytes : int, default=None
            Largest size of the remaining rows and graphs, in bytes.
        older_than : timedelta, default=None
            Time since the last use after which all rows of a space are removed.

        Returns
        -------
        list of Eviction
            Shards to be removed, summed up for each space, as :meth:`evict` returns them.

        Raises
        ------
        ParameterError
            Neither parameter was passed, or one is negative.
        """
        return [eviction for _, _, eviction in self._evictions(max_bytes, older_than)]

    def evict(
        self, *, max_bytes: int | None = None, older_than: timedelta | None = None
    ) -> list[Eviction]:
        """Remove rows, of the least recently used spaces first, until the rest fits.

        The graphs of a space are removed with its last row.

        Parameters
        ----------
        max_bytes : int, default=None
            Largest size of the remaining rows and graphs, in bytes.
        older_than : timedelta, default=None
            Time since the last use after which all rows of a space are removed.

        Returns
        -------
        list of Eviction
            Removed shards, summed up for each space: ``digest``, ``label``, ``last_used``,
            ``n_shards``, ``n_rows`` and ``size_bytes``.

        Raises
        ------
        ParameterError
            Neither parameter was passed, or one is negative.

        See Also
        --------
        clear : Remove everything.
        evictable : List what would be removed.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from featx import EmbeddingCache, FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> embeddings = FeatureExtractor("tiny", cache=cache).fit_transform(images)
        >>> [each.n_rows for each in cache.evict(max_bytes=0)]
        [4]
        """
        evictions = self._evictions(max_bytes, older_than)
        for store, shards, _ in evictions:
            remove_shards(store, shards)
        kept = {store.space.digest for store in self._all_stores() if store.shards()}
        self.graphs.remove(self.graphs.sizes().keys() - kept)
        return [eviction for _, _, eviction in evictions]

    def _evictions(
        self, max_bytes: int | None, older_than: timedelta | None
    ) -> list[tuple[SpaceStore, list[Shard], Eviction]]:
        stores, graph_bytes = self._all_stores(), self.graphs.sizes()
        chosen = choose_evictions(stores, graph_bytes, max_bytes=max_bytes, older_than=older_than)
        return [(store, shards, summarize(store, shards, graph_bytes)) for store, shards in chosen]

    def open(self, space: str | Space | None = None, *, X: Any = None) -> LazyEmbeddings:
        """Open the rows of a space as an array that is read when it is sliced.

        Parameters
        ----------
        space : str or Space, default=None
            Space, such as ``extractor.space_``, its digest, or the first digits of the digest; None
            if there is only one space.
        X : samples, default=None
            Samples whose rows to open, in their order, without augmented views; None opens all.

        Returns
        -------
        LazyEmbeddings of shape (n_rows, n_features), float32
            Array whose rows are read, and checked, when it is sliced.

        Raises
        ------
        ParameterError
            There is no such space, or more than one.
        MissingRowsError
            Rows of `X` are not stored.

        See Also
        --------
        export : Write the rows to one file.
        MomentPCA : Principal components of more rows than fit in memory.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from featx import EmbeddingCache, FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> embeddings = FeatureExtractor("tiny", cache=cache).fit_transform(images)
        >>> rows = cache.open(X=images[2:])
        >>> rows.shape, bool((rows[0] == embeddings[2]).all())
        ((2, 400), True)
        """
        store = self._chosen_store(space)
        if X is None:
            return LazyEmbeddings(store, store.keys())
        samples = samples_of_space(X, store.space.description)
        keys = identify(samples, self.files)
        missing = np.flatnonzero(~store.holds(keys))
        if len(missing):
            shown = ", ".join(one_line(samples.name(row)) for row in missing[:10].tolist())
            raise MissingRowsError(
                f"{len(missing)} of {len(keys)} samples are not stored in the space "
                f"{store.space.label!r}: {shown}. Transform them first."
            )
        return LazyEmbeddings(store, keys)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        space: str | Space | None = None,
        X: Any = None,
        y: Any = None,
    ) -> None:
        """Write the rows of a space to one file for other programs.

        Parameters
        ----------
        path : str or Path
            Path of the file. An existing regular file is replaced once the new one is complete;
            its permissions are kept.
        format : {"h5", "npz", "parquet", "csv"}, default=None
            Format; None is that of the suffix. Parquet needs ``featx[parquet]``.
        space : str or Space, default=None
            Space, such as ``extractor.space_``, its digest, or the first digits of the digest; None
            if there is only one space.
        X : samples, default=None
            Samples whose rows to write, in their order, with their names; None writes all rows.
        y : array-like of shape (n_samples,), default=None
            Labels of `X`, written as text.

        Raises
        ------
        ParameterError, InputError, MissingRowsError
            See :meth:`open`.
        OSError
            The file cannot be written; nothing is left behind.

        See Also
        --------
        import_ : Add exported rows to a cache.
        open : Read the rows in this process.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from featx import EmbeddingCache, FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> embeddings = FeatureExtractor("tiny", cache=cache).fit_transform(images)
        >>> path = os.path.join(tempfile.mkdtemp(), "pets.h5")
        >>> cache.export(path, X=images, y=["cat", "dog"] * 2)
        >>> EmbeddingCache(tempfile.mkdtemp()).import_(path)
        Imported(n_rows=4, n_added=4, n_damaged=0)
        """
        path = as_path(path)
        check_rows_export(path, format)
        if y is not None and (X is None or len(y) != len(X)):
            raise InputError("y holds the labels of X: pass X too, with as many samples")
        rows = self.open(space, X=X)
        names = None
        if X is not None:
            samples = as_samples(X)
            names = [samples.name(row) for row in range(len(samples))]
        table = ExportTable(rows, self._chosen_store(space).space, text_columns(names, y))
        write_table(table, path, format)

    def import_(self, path: str | os.PathLike[str]) -> Imported:
        """Add rows that another cache exported as HDF5, or all rows of a cache folder.

        A child process with limits on time and memory inspects the files, and each row is checked
        against its checksum. Whether a row belongs to its key is not checked: :meth:`verify` with
        `sample` does that.

        Parameters
        ----------
        path : str or Path
            Path of the exported file, or of the folder.

        Returns
        -------
        Imported
            Numbers of rows: ``n_rows`` in the files, ``n_added``, and ``n_damaged``, which were
            left out.

        Raises
        ------
        InputError
            A file was not exported by featx, or is not safe to read; nothing was added.
        OSError
            Rows cannot be stored.

        See Also
        --------
        export : Write the rows of a space to one file; its example also imports them.
        """
        outcomes = [
            add_rows(shard, self.store(shard.space)) for shard in read_shards(as_path(path))
        ]
        self.compact()
        return Imported(*map(sum, zip(*outcomes, strict=True)))

    def clear(self) -> int:
        """Remove everything that featx stored, damaged files included; foreign files stay.

        A file is removed if it has a name and the first bytes that featx gives to files of its
        folder, and a folder if nothing is left in it.

        Returns
        -------
        int
            Size of the removed files in bytes.

        Raises
        ------
        OSError
            Something cannot be removed.
        """
        freed_bytes = clear_parts(self.path)
        self.__dict__.pop("files", None)
        self.__dict__.pop("graphs", None)
        self._stores.clear()
        return freed_bytes

    def _chosen_store(self, space: str | Space | None) -> SpaceStore:
        digest = space.digest if isinstance(space, Space) else space or ""
        return choose_store(self._all_stores(), digest, folder=self.path)

    def _all_stores(self) -> list[SpaceStore]:
        folder = self._part("spaces")
        try:
            check_folder(folder)
            folders = sorted(place for place in folder.iterdir() if not place.is_symlink())
        except OSError:
            return []
        spaces = map(space_of, folders)
        return [self.store(space) for space in spaces if space is not None]


# Indexes that were read once serve every estimator of the process: a grid search makes hundreds of
# clones, which would each read them again.
_SHARED: dict[Path, EmbeddingCache] = {}


def resolve_cache(cache: Any) -> EmbeddingCache | None:
    """Return the cache for the `cache` parameter of an extractor; None if nothing is cached."""
    if cache is None or isinstance(cache, EmbeddingCache):
        return cache
    path = default_cache_path() if cache == "auto" else absolute_cache_path(cache)
    if path not in _SHARED:
        _SHARED.setdefault(path, EmbeddingCache(path))
    return _SHARED[path]
