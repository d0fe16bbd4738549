"""Damage found in a folder of the cache: moved aside where that can be done, reported once."""

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
    """What was found damaged since it was last reported.

    Parameters
    ----------
    folder : Path
        Where damaged files are moved.
    prefix : str
        For their names there, to tell them from those of other places.
    """

    def __init__(self, folder: Path, *, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self._found: list[tuple[Path, str]] = []
        self._moved: dict[Path, Path] = {}

    def note(self, path: Path, reason: str) -> None:
        """Remember what is wrong with a file."""
        self._found.append((path, reason))

    def quarantine(self, *paths: Path, reason: str) -> None:
        """Move files into the folder of damaged files if possible, and note the reason."""
        moved = self.move_aside(*paths)
        self.note(paths[0], reason if moved else f"{reason}, and it cannot be moved aside")

    def move_aside(self, *paths: Path) -> bool:
        """Move files out of the way; tell whether it could be done, leaving all if not."""
        moved = []
        try:
            check_folder(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                aside = self._aside(path)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, aside)
                    self._moved[path] = aside
                    moved.append(path)
        except OSError:
            self.move_back(*moved)
            return False
        return True

    def move_back(self, *paths: Path) -> None:
        """Undo :meth:`move_aside`, as far as that is possible."""
        for path in reversed(paths):
            with contextlib.suppress(OSError, KeyError):
                os.replace(self._moved.pop(path), path)

    def _aside(self, path: Path) -> Path:
        aside = self.folder / f"{self.prefix}-{path.name}"
        if os.path.lexists(aside):  # it may be a folder, which no rename replaces
            return aside.with_name(f"{aside.name}.{uuid.uuid4().hex}")
        return aside

    def taken(self) -> list[tuple[Path, str]]:
        """Return what was found, as (path, reason), and forget it."""
        found, self._found = self._found, []
        return found

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Turn the damage found inside into one warning."""
        try:
            yield
        finally:
            found = self.taken()
            if found:
                reasons = "; ".join(
                    f"{one_line(path)}: {one_line(reason)}" for path, reason in found
                )
                warn_caller(
                    CacheDamageWarning(
                        f"damage in the cache: {reasons}. What was moved aside is in "
                        f"{one_line(self.folder)}; rows that cannot be read are computed again."
                    )
                )
