"""LeftOutEntries, ``is_litter``: files and folders that a listing leaves out."""

from __future__ import annotations

import os
from collections import defaultdict

from featx._text import one_line
from featx._urls import is_url, shown_url
from featx._warning import warn_caller
from featx.exceptions import FolderWarning

# Files and folders that operating systems, file servers and tools leave behind; never samples.
_LITTER = frozenset(
    {
        *(".appledb", ".appledesktop", ".appledouble", ".apdisk", ".documentrevisions-v100"),
        *(".ds_store", ".fseventsd", ".localized", ".spotlight-v100", ".temporaryitems"),
        *(".trashes", ".volumeicon.icns", "__macosx", "icon\r", "network trash folder"),
        *("temporary items", "$recycle.bin", "desktop.ini", "ehthumbs.db", "ehthumbs_vista.db"),
        *("recycler", "system volume information", "thumbs.db", "thumbs.db:encryptable"),
        *("#recycle", "#snapshot", ".@__thumb", ".snapshot", "@eadir", "@recently-snapshot"),
        *("@recycle", "@tmp", "~snapshot", ".directory", ".nomedia", ".thumbnails", "lost+found"),
        *(".gitkeep", ".ipynb_checkpoints", ".keep", ".picasa.ini", "__pycache__", "picasa.ini"),
    }
)
_LITTER_PREFIXES = ("._", ".trash-", ".nfs", ".fuse_hidden", "found.0")
_N_SHOWN = 10


class LeftOutEntries:
    """Entries below a root that a listing left out, or that may be mistakes, by reason."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, path: str, detail: str = "") -> None:
        """Add a path, relative if the root is a URL, unless it is litter."""
        if not is_litter(os.path.basename(path)):
            name = one_line(path if is_url(self._root) else os.path.relpath(path, self._root))
            self._names[reason].append(f"{name} ({detail})" if detail else name)

    def described(self, prefix: str = "") -> str:
        """Return all entries as text after a prefix; empty if there are none."""
        parts = []
        for reason, names in self._names.items():
            more = f" and {len(names) - _N_SHOWN} more" if len(names) > _N_SHOWN else ""
            parts.append(f"{len(names)} {reason}: {', '.join(sorted(names)[:_N_SHOWN])}{more}")
        return f"{prefix}{'; '.join(parts)}" if parts else ""

    def warn(self) -> None:
        """Emit one warning, if there are any entries."""
        if self._names:
            warn_caller(FolderWarning(self.described(f"{shown_url(self._root)!r}: ")))


def is_litter(name: str) -> bool:
    """Return True for litter of operating systems, such as ``Thumbs.db`` and ``__MACOSX``."""
    lower = name.lower()
    return lower in _LITTER or lower.startswith(_LITTER_PREFIXES)


def is_hidden(path: str) -> bool:
    """Return True for a hidden file or litter, or one in such a folder."""
    return any(part.startswith(".") or is_litter(part) for part in path.split("/"))
