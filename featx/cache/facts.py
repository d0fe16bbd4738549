"""FactStore: small facts on disk, such as the space of a recipe, each in its own file.

A lost or damaged fact counts as unknown, and is determined again when it is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featx._files import check_folder, read_regular, write_atomically
from featx.digests.hashing import digest_of_json

_MAX_BYTES = 2**20


class FactStore:
    """A folder of facts, such as a batch size, each stored under a key of plain data.

    The folder is made when the first fact is stored.

    Examples
    --------
    >>> import tempfile
    >>> facts = FactStore(Path(tempfile.mkdtemp()))
    >>> facts.remember({"space": "ab12", "device": "cpu"}, {"batch_size": 64})
    >>> facts.recall({"device": "cpu", "space": "ab12"})
    {'batch_size': 64}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, key: dict[str, Any]) -> Any:
        """Return the fact stored under a key; None if there is none."""
        try:
            check_folder(self.folder)
            entry = json.loads(read_regular(self._path(key), max_bytes=_MAX_BYTES))
            is_sound = entry["digest"] == digest_of_json([entry["subject"], entry["note"]])
            return entry["note"] if is_sound and entry["subject"] == key else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def remember(self, key: dict[str, Any], fact: Any) -> None:
        """Store a fact, plain data, under a key; raise OSError if it cannot be written."""
        # "subject" and "note" are kept for the files of existing caches.
        entry = {"subject": key, "note": fact, "digest": digest_of_json([key, fact])}
        check_folder(self.folder)
        write_atomically(self._path(key), json.dumps(entry, indent=1).encode())

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{digest_of_json(key)}.json"


def file_fact(space_digest: str) -> dict[str, Any]:
    """Return the key of the name of the saved file that holds the backbone of a space."""
    return {"file of": space_digest}
