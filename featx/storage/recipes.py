"""Which space a backbone that is named in plain data stands for, remembered on disk.

A recipe (see ``resolution.py``) is found again by its digest, so that a warm run knows its space
without building the backbone. What is lost or damaged is found by building it once more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featx._files import write_atomically
from featx.identity._hashing import digest_of_json
from featx.identity.spaces import Space


class RecipeBook:
    """A folder with a small file for each recipe.

    Parameters
    ----------
    folder : Path
        Made when the first recipe is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, recipe: dict[str, Any]) -> Space | None:
        """Return the space that a recipe led to before; None if it is not known."""
        try:
            entry = json.loads(self._path(recipe).read_bytes())
            space = Space.from_json(entry["space"])
            if entry["recipe"] == recipe and entry["digest"] == space.digest:
                return space
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return None

    def remember(self, recipe: dict[str, Any], space: Space) -> None:
        """Store which space a recipe led to.

        Raises
        ------
        OSError
            It could not be written.
        """
        entry = {"recipe": recipe, "space": space.to_json(), "digest": space.digest}
        write_atomically(self._path(recipe), json.dumps(entry, indent=1).encode())

    def _path(self, recipe: dict[str, Any]) -> Path:
        return self.folder / f"{digest_of_json(recipe)}.json"
