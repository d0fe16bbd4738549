"""DamageLog: damage in a folder of the cache, quarantined where possible and reported once."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from featx._files import check_folder
from featx._text import one_line
from featx._warning import warn_caller
from featx.exceptions import CacheDamageWarning


class DamageLog:
    """Damage found since the last report.

    Damaged files are moved to the quarantine `folder`, where the prefix of their names
    distinguishes them from files of other folders.
    """

    def __init__(self, folder: Path, *, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self._found: list[tuple[Path, str]] = []
        self._moved: dict[Path, Path] = {}

    def note(self, path: Path, reason: str) -> None:
        """Remember the fault of a file for the next report."""
        self._found.append((path, reason))

    def quarantine(self, *paths: Path, reason: str) -> None:
        """Move files into quarantine if possible, and note the reason."""
        is_moved = self.move(*paths)
        self.note(paths[0], reason if is_moved else f"{reason}, and it cannot be quarantined")

    def move(self, *paths: Path) -> bool:
        """Move files into quarantine; return False, and leave all in place, if that fails."""
        moved = []
        try:
            check_folder(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                target = self._target(path)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, target)
                    self._moved[path] = target
                    moved.append(path)
        except OSError:
            self.move_back(*moved)
            return False
        return True

    def move_back(self, *paths: Path) -> None:
        """Undo :meth:`move` as far as possible."""
        for path in reversed(paths):
            with contextlib.suppress(OSError, KeyError):
                os.replace(self._moved.pop(path), path)

    def _target(self, path: Path) -> Path:
        target = self.folder / f"{self.prefix}-{path.name}"
        if os.path.lexists(target):  # a folder, for example, cannot be replaced by renaming
            return target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        return target

    def taken(self) -> list[tuple[Path, str]]:
        """Return the damage found, as (path, reason), and clear the log."""
        found, self._found = self._found, []
        return found

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Warn once of all damage that is found inside the context."""
        try:
            yield
        finally:
            found = self.taken()
            if found:
                reasons = "; ".join(f"{one_line(path)}: {one_line(why)}" for path, why in found)
                warn_caller(
                    CacheDamageWarning(
                        f"damage in the cache: {reasons}. Quarantined files are in "
                        f"{one_line(self.folder)}; rows that cannot be read are computed again."
                    )
                )
