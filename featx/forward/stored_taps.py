"""The layers that one pass stores, and which samples each of them lacks.

A search asks again and again for the same samples, fold by fold. That the other layers are stored
for them is therefore remembered in this process; should one of their rows be deleted meanwhile,
it is computed when it is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from featx.forward.row_writer import RowWriter
from featx.identity._hashing import digest_of
from featx.networks.resolution import Resolved
from featx.storage.cache import EmbeddingCache

_MAX_COMPLETE = 10_000
# What was found complete: layers of a space in a cache, for some samples.
_complete: OrderedDict[bytes, None] = OrderedDict()
_lock = threading.Lock()


class Tap(NamedTuple):
    """A layer whose embeddings a pass stores.

    Attributes
    ----------
    resolved : Resolved
    writer : RowWriter
    lacks : ndarray of shape (n_samples,), bool
        Of which samples it has no row.
    """

    resolved: Resolved
    writer: RowWriter
    lacks: np.ndarray


class OtherTaps:
    """Layers of the same backbone that a pass stores as well.

    Parameters
    ----------
    find : callable
        Finds them, which takes a look at several files for each.
    name : str, default=""
        Which they are, if the space that the pass is for says all the rest; by default nothing is
        remembered of them.
    """

    def __init__(self, find: Callable[[], Sequence[Resolved]], name: str = "") -> None:
        self._find, self._name = find, name

    def lacking(self, cache: EmbeddingCache, own: Tap, keys: np.ndarray) -> list[Tap]:
        """Return those that may lack some of the samples.

        Parameters
        ----------
        cache : EmbeddingCache
        own : Tap
            Of the space that the pass is for.
        keys : ndarray of shape (n_samples,), dtype S16
        """
        subject = digest_of(
            f"{cache.path}\n{own.resolved.space.digest}\n{self._name}\n".encode(),
            np.ascontiguousarray(keys).view(np.uint8),
        )
        if self._name and not own.lacks.any() and subject in _complete:
            return []
        taps = []
        for resolved in self._find():
            store = cache.store(resolved.space)
            taps.append(Tap(resolved, RowWriter(store), ~store.holds(keys)))
        if not any(tap.lacks.any() for tap in taps):
            with _lock:
                _complete[subject] = None
                while len(_complete) > _MAX_COMPLETE:
                    _complete.popitem(last=False)
        return taps
