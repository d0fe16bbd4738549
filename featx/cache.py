"""The cache of embeddings: a folder that never holds a wrong row.

What lies where::

    CACHE/spaces/<space digest>/shard-<id>.h5, .index    rows (``store.py``, ``shards.py``)
    CACHE/recipes/<recipe digest>.json                   which space a backbone's name stands for
    CACHE/files/files-<id>.index                         what files contain (``file_index.py``)
    CACHE/damaged/                                       what was found damaged, moved aside

Everything in it is computed anew when it is missing, so a cache may be deleted, in whole or in
part, at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs

from featx._files import write_atomically
from featx._hashing import digest_of_json
from featx.exceptions import ParameterError
from featx.file_index import FileIndex
from featx.shards import INDEX_SUFFIX, DamagedShardError, open_shard, remove_shard
from featx.spaces import Space
from featx.store import SpaceStore


def default_cache_path() -> Path:
    """Return ``$FEATX_CACHE`` if it is set, else ``featx`` in the user's cache folder."""
    return Path(os.environ.get("FEATX_CACHE") or platformdirs.user_cache_path("featx"))


class EmbeddingCache:
    """A folder of embeddings, shared by any number of processes.

    Parameters
    ----------
    path : str or Path, default=None
        The folder; made when something is stored. None is ``$FEATX_CACHE``, or ``featx`` in the
        user's cache folder.

    Examples
    --------
    >>> import tempfile
    >>> from featx import EmbeddingCache
    >>> cache = EmbeddingCache(tempfile.mkdtemp())
    >>> cache.info()["n_rows"]
    0
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path).expanduser().absolute() if path else default_cache_path()

    def __repr__(self) -> str:
        return f"EmbeddingCache({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingCache) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (str(self.path),)

    def __sklearn_clone__(self) -> EmbeddingCache:
        return self

    @cached_property
    def files(self) -> FileIndex:
        """What files contain, remembered."""
        return FileIndex(self.path / "files")

    @cached_property
    def _stores(self) -> dict[str, SpaceStore]:
        return {}

    def store(self, space: Space) -> SpaceStore:
        """Return the rows of a space; one object per space, so that indexes stay in memory."""
        if space.digest not in self._stores:
            self._stores[space.digest] = SpaceStore(
                self.path / "spaces" / space.digest,
                space,
                damaged_folder=self.path / "damaged",
            )
        return self._stores[space.digest]

    def recall_space(self, recipe: dict[str, Any]) -> Space | None:
        """Return the space that a recipe led to before, without building its backbone."""
        path = self._recipe_path(recipe)
        try:
            entry = json.loads(path.read_bytes())
            space = Space.from_json(entry["space"])
            if entry["recipe"] == recipe and entry["digest"] == space.digest:
                return space
        except (OSError, ValueError, TypeError, KeyError):
            # Missing or damaged alike, it is found by building the backbone and stored again.
            return None
        return None

    def remember_space(self, recipe: dict[str, Any], space: Space) -> None:
        """Store which space a recipe led to.

        Raises
        ------
        OSError
            It could not be written.
        """
        entry = {"recipe": recipe, "space": space.to_json(), "digest": space.digest}
        write_atomically(self._recipe_path(recipe), json.dumps(entry, indent=1).encode())

    def _recipe_path(self, recipe: dict[str, Any]) -> Path:
        return self.path / "recipes" / f"{digest_of_json(recipe)}.json"

    def info(self) -> dict[str, Any]:
        """Say what is stored.

        Returns
        -------
        dict
            ``path``; ``n_rows`` (each distinct row of a space once); ``n_forward`` (rows ever
            computed and still kept, doubles included); ``n_shards``; ``size_bytes``; ``spaces``:
            for each its digest, label, identity, rows, shards and bytes.
        """
        spaces = [_space_info(store) for store in self._all_stores()]
        totals = {
            name: sum(space[name] for space in spaces)
            for name in ("n_rows", "n_forward", "n_shards", "size_bytes")
        }
        return {"path": str(self.path), **totals, "spaces": spaces}

    def verify(self, repair: bool = False) -> dict[str, int]:
        """Check every row against its checksum.

        Parameters
        ----------
        repair : bool, default=False
            Whether to move shards with damaged rows aside, keeping their sound rows.

        Returns
        -------
        dict of str to int
            The damaged rows of each damaged shard, by its path; empty if all is well.
        """
        damaged = {}
        for store in self._all_stores():
            damaged.update({str(path): n for path, n in store.damaged_rows().items()})
            if repair:
                store.repair()
        return damaged

    def compact(self) -> None:
        """Merge the shards of each space into few, dropping rows that are stored twice."""
        for store in self._all_stores():
            store.compact()

    def evict(self, *, max_bytes: int) -> int:
        """Remove shards, the least recently written first, until the rest fits.

        Parameters
        ----------
        max_bytes : int
            What may stay.

        Returns
        -------
        int
            Bytes that were freed.
        """
        if max_bytes < 0:
            raise ParameterError(f"max_bytes={max_bytes}: expected a size in bytes, 0 or more")
        aged = []
        for store in self._all_stores():
            for shard in store.shards():
                with contextlib.suppress(FileNotFoundError):
                    status = shard.path.stat()
                    aged.append((status.st_mtime_ns, status.st_size, shard))
        excess = sum(size for _, size, _ in aged) - max_bytes
        freed = 0
        for _, size_bytes, shard in sorted(aged, key=lambda item: item[0]):
            if freed >= excess:
                break
            remove_shard(shard)
            freed += size_bytes
        return freed

    def export(self, path: str | os.PathLike[str]) -> None:
        """Copy all rows, merged, to another cache folder; it is a cache like this one.

        Parameters
        ----------
        path : str or Path
            The folder, made if missing. Rows that it holds already stay.
        """
        target = EmbeddingCache(path)
        for store in self._all_stores():
            copy = target.store(store.space)
            for embeddings, keys in store.blocks():
                missing = ~copy.find(keys)[1]
                if missing.any():
                    copy.append(keys[missing], embeddings[missing])
        recipes = self.path / "recipes"
        if recipes.is_dir():
            shutil.copytree(recipes, target.path / "recipes", dirs_exist_ok=True)

    def clear(self) -> None:
        """Remove everything that is stored, damaged files included; foreign files stay."""
        for name in ("spaces", "recipes", "files", "damaged"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self.__dict__.pop("files", None)
        self._stores.clear()

    def _all_stores(self) -> list[SpaceStore]:
        folder = self.path / "spaces"
        folders = sorted(folder.iterdir()) if folder.is_dir() else []
        spaces = (_space_of(folder) for folder in folders)
        return [self.store(space) for space in spaces if space is not None]


def _space_of(folder: Path) -> Space | None:
    """Read from the shards what space a folder is of; None if no index can be read."""
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        with contextlib.suppress(DamagedShardError, OSError):
            space = open_shard(index).space
            if space.digest == folder.name:
                return space
    return None


def _space_info(store: SpaceStore) -> dict[str, Any]:
    shards = store.shards()
    return {
        "digest": store.space.digest,
        "label": store.space.label,
        "identity": store.space.description,
        "n_rows": len(store.keys()),
        "n_forward": sum(shard.shape[0] for shard in shards),
        "n_shards": len(shards),
        "size_bytes": sum(_size_bytes(shard.path) for shard in shards),
    }


def _size_bytes(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def resolve_cache(cache: Any) -> EmbeddingCache | None:
    """Turn the `cache` parameter of an extractor into a cache, or None for none.

    Parameters
    ----------
    cache : "auto", None, str, Path or EmbeddingCache
    """
    if cache is None or isinstance(cache, EmbeddingCache):
        return cache
    path = default_cache_path() if isinstance(cache, str) and cache == "auto" else Path(cache)
    return _shared_cache(str(path.expanduser().absolute()))


_SHARED: dict[str, EmbeddingCache] = {}


def _shared_cache(path: str) -> EmbeddingCache:
    # Indexes that were read once serve every estimator of the process: a grid search makes
    # hundreds of clones, which would each read them again.
    return _SHARED.setdefault(path, EmbeddingCache(path))
