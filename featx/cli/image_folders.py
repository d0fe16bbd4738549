"""Listing of image folders for commands that need no classes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from featx.samples.folders import (
    IMAGE_SUFFIXES,
    is_litter,
    label_of,
    list_images,
    load_image_folder,
)


def list_folder(path: str | os.PathLike[str]) -> Bunch:
    """Return all images of a folder, with or without a folder per class.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Bunch
        With class folders and no images beside them, ``data`` and ``target`` of
        :func:`load_image_folder`. Otherwise ``data`` is the paths of all images below the folder,
        and ``target`` the name of the subfolder of each, empty for a loose image; None if all
        images are loose.

    Raises
    ------
    InputError
        The folder is missing, or holds no image; see also :func:`load_image_folder`.

    Warns
    -----
    FolderWarning
        Files or folders were left out.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = tempfile.mkdtemp()
    >>> Image.new("RGB", (8, 8)).save(os.path.join(root, "1.png"))
    >>> [os.path.basename(path) for path in list_folder(root).data], list_folder(root).target
    (['1.png'], None)
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return load_image_folder(root)  # raises the fitting error
    entries = [
        entry
        for entry in root.iterdir()
        if not (entry.name.startswith(".") or is_litter(entry.name))
    ]
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) < len(entries) and not any(f.suffix.lower() in IMAGE_SUFFIXES for f in files):
        return load_image_folder(root)
    images = list_images([root])
    folders = [Path(image).relative_to(root).parts[:-1] for image in images]
    labels = np.array([label_of(parents[0]) if parents else "" for parents in folders])
    return Bunch(data=np.array(images), target=labels if any(folders) else None)
