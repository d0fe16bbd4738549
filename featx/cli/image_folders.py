"""Folders whose images may or may not have classes: for commands that need none."""

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
    """List all images of a folder, whether or not it has a folder for each class.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Bunch
        ``data`` and ``target`` as :func:`load_image_folder` has them where there are class folders
        and no images beside them. Else ``data`` is all images below the folder, and ``target`` the
        name of the folder in it where each lies, empty where it lies in none; None if all do.

    Raises
    ------
    InputError
        There is no such folder, or it holds no image; see also :func:`load_image_folder`.

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
        return load_image_folder(root)  # which says what is wrong
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
