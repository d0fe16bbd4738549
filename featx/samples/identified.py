"""Samples that are identified, block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from featx.exceptions import SampleFault
from featx.identity.key_table import KEY_DTYPE, NO_KEY


class Identified(NamedTuple):
    """Some of the samples, identified.

    Attributes
    ----------
    rows : slice
    keys : ndarray of shape (m,), dtype S16
    faults : list of SampleFault
    """

    rows: slice
    keys: np.ndarray
    faults: list[SampleFault]


class Identities:
    """What is known of samples so far.

    Parameters
    ----------
    n_samples : int

    Attributes
    ----------
    keys : ndarray of shape (n_samples,), dtype S16
        All zero where there is a fault, and where nothing is known yet.
    faults : list of SampleFault
    n_known : int
        Samples from the first on that are identified.

    Examples
    --------
    >>> identities = Identities(n_samples=3)
    >>> identities.add(Identified(slice(0, 2), np.array([b"a" * 16, b"b" * 16]), []))
    >>> identities.n_known, identities.keys[1].decode()
    (2, 'bbbbbbbbbbbbbbbb')
    """

    def __init__(self, n_samples: int) -> None:
        self.keys = np.zeros(n_samples, KEY_DTYPE)
        self.faults: list[SampleFault] = []
        self.n_known = 0

    def add(self, block: Identified) -> None:
        """Take the next samples."""
        self.keys[block.rows] = block.keys
        self.keys[[fault.position for fault in block.faults]] = NO_KEY
        self.faults += block.faults
        self.n_known = block.rows.stop
