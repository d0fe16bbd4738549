"""Small facts remembered on disk: what was asked, and what the answer was.

What is lost or damaged is found out once more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featx._files import check_folder, read_regular, write_atomically
from featx.identity._hashing import digest_of_json

_MAX_BYTES = 2**20


class NoteBook:
    """A folder with a small file for each fact.

    Parameters
    ----------
    folder : Path
        Made when the first is stored.

    Examples
    --------
    >>> import tempfile
    >>> notes = NoteBook(Path(tempfile.mkdtemp()))
    >>> notes.remember({"space": "ab12", "device": "cpu"}, {"batch_size": 64})
    >>> notes.recall({"device": "cpu", "space": "ab12"})
    {'batch_size': 64}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, subject: dict[str, Any]) -> Any:
        """Return what was noted about a subject; None if nothing was."""
        try:
            check_folder(self.folder)
            entry = json.loads(read_regular(self._path(subject), max_bytes=_MAX_BYTES))
            sound = entry["digest"] == digest_of_json([entry["subject"], entry["note"]])
            return entry["note"] if sound and entry["subject"] == subject else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def remember(self, subject: dict[str, Any], note: Any) -> None:
        """Note plain data about a subject, which is plain data too.

        Raises
        ------
        OSError
            It could not be written.
        """
        entry = {"subject": subject, "note": note, "digest": digest_of_json([subject, note])}
        check_folder(self.folder)
        write_atomically(self._path(subject), json.dumps(entry, indent=1).encode())

    def _path(self, subject: dict[str, Any]) -> Path:
        return self.folder / f"{digest_of_json(subject)}.json"
