"""The images in folders: one folder per class, or any."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from featx._warning import warn_caller
from featx.exceptions import FolderWarning, InputError

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
_LITTER = frozenset((".ds_store", "thumbs.db", "desktop.ini"))
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))
_SHOWN = 10


def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List the images of a folder that has a folder for each class.

    Images are found at any depth below the folder of their class, classes and images sorted by
    name. Nothing is decoded.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Bunch
        ``data``: ndarray of shape (n_samples,), paths; ``target``: ndarray of shape (n_samples,),
        the name of each image's class; ``target_names``: list of str, the classes, sorted.

    Raises
    ------
    InputError
        There is no such folder, it has no class folders, or classes without images.

    Warns
    -----
    FolderWarning
        Hidden and foreign files were left out; one warning names them.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from featx import load_image_folder
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     Image.new("RGB", (8, 8)).save(root / name / "1.png")
    >>> load_image_folder(root).target.tolist()
    ['cat', 'dog']
    """
    root = Path(path).expanduser()
    classes = _class_folders(root)
    left_out = [entry for entry in root.iterdir() if not entry.is_dir() or _is_hidden(entry.name)]
    images: dict[str, list[str]] = {}
    for folder in classes:
        images[folder.name], foreign = _images_below(folder)
        left_out += foreign
    empty = [name for name, found in images.items() if not found]
    if empty:
        raise InputError(
            f"{str(root)!r}: {len(empty)} of {len(classes)} class folders hold no image "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}): {', '.join(map(repr, empty[:_SHOWN]))}"
        )
    _warn_of(left_out, root)
    return Bunch(
        data=np.array([image for found in images.values() for image in found]),
        target=np.repeat(list(images), [len(found) for found in images.values()]),
        target_names=list(images),
    )


def list_images(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """List images: files as they are named, and folders as the sorted images below them.

    Parameters
    ----------
    places : iterable of str or Path

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        Folders hold no image, or patterns such as ``*.jpg`` name no file; all of them are named.

    Warns
    -----
    FolderWarning
        Hidden and foreign files of a folder were left out.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = tempfile.mkdtemp()
    >>> Image.new("RGB", (8, 8)).save(os.path.join(root, "1.png"))
    >>> [os.path.basename(path) for path in list_images([root, "photos/2.jpg"])]
    ['1.png', '2.jpg']
    """
    found: list[str] = []
    empty: list[str] = []
    patterns: list[str] = []
    for given in places:
        place = os.fspath(given)
        if not os.path.isdir(place):
            (patterns if _is_pattern(place) else found).append(place)
            continue
        images, foreign = _images_below(Path(place))
        found += images
        empty += [] if images else [place]
        _warn_of(foreign, Path(place))
    faults = []
    if empty:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        faults.append(f"{len(empty)} folders hold no image ({suffixes}): {_named(empty)}")
    if patterns:
        faults.append(
            f"no such file: {_named(patterns)}. A shell leaves a pattern as it is where nothing "
            "matches or where it is in quotes: take the quotes off, or name a folder"
        )
    if faults:
        raise InputError("\n".join(faults))
    return found


def _is_pattern(place: str) -> bool:
    """Tell a pattern from a file that is gone, whose name may hold brackets."""
    return ("*" in place or "?" in os.path.basename(place)) and not os.path.lexists(place)


def _named(places: list[str]) -> str:
    return ", ".join(map(repr, places[:_SHOWN]))


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        reason = "is a file" if root.exists() else "no such folder"
        raise InputError(f"{str(root)!r}: {reason}; expected a folder with a folder per class")
    folders = sorted(
        entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name)
    )
    names = [folder.name for folder in folders]
    if not names:
        raise InputError(f"{str(root)!r} has no folders in it: expected one per class")
    if {name.lower() for name in names} <= _SPLITS:
        raise InputError(
            f"{str(root)!r} holds the splits {', '.join(names)}, not classes: load one of them, as "
            f"in load_image_folder({os.path.join(root, names[0])!r})"
        )
    return folders


def _images_below(folder: Path) -> tuple[list[str], list[Path]]:
    """Find the images below a folder, and what else lies there."""
    images, foreign = [], []
    visited = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            # A link back to a folder above: its images are in the list already.
            subfolders.clear()
            continue
        visited.add(real)
        foreign += [Path(place, name) for name in subfolders if _is_hidden(name)]
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        for name in files:
            is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
            if is_image and not _is_hidden(name):
                images.append(os.path.join(place, name))
            else:
                foreign.append(Path(place, name))
    return sorted(images), foreign


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _warn_of(left_out: list[Path], root: Path) -> None:
    names = sorted(
        str(entry.relative_to(root)) for entry in left_out if entry.name.lower() not in _LITTER
    )
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        warn_caller(
            FolderWarning(
                f"{str(root)!r}: {len(names)} files or folders were left out, being hidden or no "
                f"images: {', '.join(names[:_SHOWN])}{more}"
            )
        )
