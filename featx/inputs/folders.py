"""``load_image_folder``, ``list_images``: images in folders and archives, by class or not."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from featx._text import as_utf8
from featx._urls import (
    archive_url,
    is_on_web_server,
    is_url,
    joined_path,
    local_path,
    relative_path,
    shown_path,
    shown_url,
    suffix_of,
)
from featx._validation import ParameterFaults
from featx.exceptions import InputError
from featx.inputs.labeled import IMAGE_SUFFIXES, LabeledSamples
from featx.inputs.left_out import LeftOutEntries, is_hidden, is_litter
from featx.inputs.places import files_below, folder_or_archive

SPLITS = frozenset(
    (
        *("train", "training", "val", "valid", "validation", "test", "testing"),
        *("dev", "eval", "evaluation", "holdout"),
    )
)
_SUFFIXES = tuple(IMAGE_SUFFIXES)
_N_SHOWN = 10
_FOREIGN = "files or folders were left out, since they are hidden or not images"
_UNNAMED = "files were left out, since '::' ends a path in URLs"
_UNLABELED = "images were left out, since they lie in no folder of a class"
_LOCKED = "files or folders were left out, since they cannot be read"
_BROKEN = "links were left out, since they lead nowhere"
_SPECIAL = "files were left out, since they are pipes, sockets or devices"
_UPWARD = "links were left out, since they lead to a folder above, or to images of other classes"
_SHARED = "images are links to images of other classes, which thus have two labels"
_TWICE = "folders belong to several classes, so their images have several labels"


def load_image_folder(
    path: str | os.PathLike[str], *, groups: str | None = None, split: str | None = None
) -> LabeledSamples:
    """List the images of a folder or an archive that has a folder for each class.

    Images are found at any depth below the folder of their class, classes and images sorted by
    name. Nothing is decoded. Links are followed, but not those inside a class that lead to a folder
    above it or to another class.

    Parameters
    ----------
    path : str or Path
        Path or URL of the folder, such as ``"s3://bucket/photos"``, or of an archive (``.zip``,
        ``.tar``, ``.tar.gz``, ``.tar.bz2``, ``.tar.xz``). If an archive holds nothing but one
        folder, the classes may lie in that.
    groups : {"subfolder"}, default=None
        "subfolder" makes a group of each folder right below a class, such as that of a patient in
        ``class/patient/1.png``. Folders of the same name in several classes are one group. By
        default, there are no groups.
    split : str, default=None
        Name of a folder in `path` that has a folder for each class, such as "train" beside "val"
        and "test"; only its images are listed. By default, the folders of the classes are those in
        `path`.

    Returns
    -------
    LabeledSamples
        A Bunch, which notebooks show with some of its images. ``data``: ndarray of shape
        (n_samples,), paths or URLs as str, dtype object; ``target``: ndarray of shape
        (n_samples,), the name of each image's class; ``target_names``: list of str, the classes,
        sorted; ``groups``: ndarray of shape (n_samples,), the name of each image's group, or None.
        Names are in composed Unicode (NFC), the form in which they are usually typed.

    Raises
    ------
    InputError
        The folder is missing or unreadable, has no class folders, has classes without images, or
        lacks the split; groups are asked for, and images lie in no folder of a group; or `path` is
        on a web server, which does not list its files.
    ParameterError
        `groups` or `split` is neither of those above.
    MissingExtraError
        The package that opens the URL is not installed.

    Warns
    -----
    FolderWarning
        Files, folders or links were left out, or names of classes are easily confused; one warning
        names them. Litter of operating systems (``Thumbs.db``, ``__MACOSX``, ``@eaDir``, ...) is
        left out without a warning.

    See Also
    --------
    load_table : Samples in the columns of a table.
    load_webdataset : Samples in the tar files of a WebDataset.
    FeatureExtractor : Extractor that takes the paths.
    find_image_issues : Images that are unreadable, dark, blurred, tiny, and the like.

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
    faults = ParameterFaults("load_image_folder")
    faults.check_option("groups", groups, [None, "subfolder"])
    if not (split is None or isinstance(split, str)):
        faults.add("split", split, "the name of a folder, or None.")
    faults.raise_any()
    if not os.fspath(path):
        raise InputError("'' is an empty path: expected a folder; the current one is '.'")
    root = root_of(path)
    root = root if split is None else _folder_of_split(root, split)
    left_out = LeftOutEntries(root)
    find = _classes_of_url if is_url(root) else _classes_of_folder
    images = find(root, left_out)
    names = sorted(images)
    data = np.array([image for name in names for image in images[name]], object)
    groups_of_data = _subfolders_of(data, root) if groups else None
    left_out.warn()
    return LabeledSamples(
        data=data,
        target=np.repeat(names, [len(images[name]) for name in names]),
        target_names=names,
        groups=groups_of_data,
    )


def root_of(path: str | os.PathLike[str]) -> str:
    """Return the path or URL of a folder; for an archive, of its only folder or of its root."""
    place = os.fspath(path)
    if is_url(place) and (local := local_path(place)) is not None:
        place = local
    root = folder_or_archive(place)
    if not is_url(root):
        return os.fspath(Path(root))
    if root == place:  # the URL of a folder, or of one in an archive
        return root
    paths = [path for path in files_below(root) if not is_hidden(path)]
    tops = {path.partition("/")[0] for path in paths}
    holds_classes = all(path.count("/") > 1 for path in paths)
    return joined_path(root, tops.pop()) if len(tops) == 1 and holds_classes else root


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return True for a folder, an archive, or the URL of one, as far as its text shows that."""
    place = os.fspath(path)
    if archive_url(place) is not None:
        return True
    if is_url(place):
        return not (is_on_web_server(place) or suffix_of(place) in IMAGE_SUFFIXES)
    return os.path.isdir(os.path.expanduser(place))


def _classes_of_url(root: str, left_out: LeftOutEntries) -> dict[str, list[str]]:
    """Return the sorted images of each class; raise if a class has none."""
    paths = files_below(root)
    shown = (path for path in paths if not is_hidden(path))
    folders = sorted({path.partition("/")[0] for path in shown if "/" in path})
    images: dict[str, list[str]] = {label_of(folder): [] for folder in folders}
    for path in _images_among(paths, left_out):
        folder, slash, _ = path.partition("/")
        if slash:
            images[label_of(folder)].append(joined_path(root, path))
        else:
            left_out.add(_UNLABELED, path)
    _check_are_classes(root, folders, left_out)
    _check_classes_hold_images(root, images, left_out)
    _add_confusable_names(folders, left_out)
    return images


def _images_among(paths: Iterable[str], left_out: LeftOutEntries) -> Iterator[str]:
    """Yield the paths of images below a URL; other files are left out."""
    for path in paths:
        if path.lower().endswith(_SUFFIXES) and not is_hidden(path):
            if "::" in path:
                left_out.add(_UNNAMED, path)
            else:
                yield path
        elif not any(map(is_litter, path.split("/"))):
            left_out.add(_FOREIGN, path)


def _folder_of_split(root: str, split: str) -> str:
    if is_url(root):
        return joined_path(root, split)
    _check_is_folder(root)
    folders = _shown_folders(root)
    if split not in folders:
        shown = _paths_text(list(folders)) or "no folders"
        raise InputError(f"{root!r} has no split {split!r}: it holds {shown}")
    return folders[split]


def _classes_of_folder(root: str, left_out: LeftOutEntries) -> dict[str, list[str]]:
    """Return the sorted images of each class; raise if a class has none."""
    folders = _class_folders(root, left_out)
    places = {folder: os.path.realpath(folder) for folder in folders}
    images: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for folder, place in places.items():
        others = [other for other in places.values() if other != place]
        found = _ImageFinder(folder, left_out, others, owners).images()
        images[label_of(folder)] = sorted(images.get(label_of(folder), []) + found)
    _check_classes_hold_images(root, images, left_out)
    _add_confusable_names(folders, left_out)
    return images


def _check_classes_hold_images(
    root: str, images: Mapping[str, list[str]], left_out: LeftOutEntries
) -> None:
    empty = [name for name, found in images.items() if not found]
    if empty:
        raise InputError(
            f"{shown_url(root)!r}: {len(empty)} of {len(images)} class folders hold no image "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}): {_paths_text(empty)}{left_out.described('. ')}"
        )


def _subfolders_of(images: Iterable[str], root: str) -> np.ndarray:
    """Return the name of the folder right below its class for each image, (n,) str."""
    names, outside = [], []
    for image in images:
        _, name, *below = relative_path(image, root).split(os.sep)
        names.append(name)
        if not below:
            outside.append(relative_path(image, root))
    if outside:
        more = f" and {len(outside) - _N_SHOWN} more" if len(outside) > _N_SHOWN else ""
        raise InputError(
            f"{shown_url(root)!r}: {len(outside)} of {len(names)} images lie in no folder of a "
            f'group, which groups="subfolder" expects below each class: '
            f"{_paths_text(outside)}{more}"
        )
    labels = {name: label_of(name) for name in set(names)}
    return np.array([labels[name] for name in names])


def split_folders(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the folders of splits, such as ``train`` and ``val``, by their names, sorted.

    The result is empty if the folder is missing, or holds other folders that are not hidden.
    """
    found = _shown_folders(os.path.expanduser(path))
    return found if {name.lower() for name in found} <= SPLITS else {}


def _shown_folders(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the folders in a folder by their names, sorted, without hidden ones and litter."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_shown = not (entry.name.startswith(".") or is_litter(entry.name))
            if is_shown and entry.is_dir():
                found[entry.name] = os.fspath(entry.path)
    return found


def list_images(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """List images: files as they are named, folders and archives as the sorted images in them.

    A FolderWarning for each folder names what was left out below it. InputError is raised, and
    names all of them, if folders hold no image, or patterns such as ``*.jpg`` name no file.

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
        if is_folder(place):
            images = _images_of_folder(place)
            found += images
            empty += [] if images else [shown_path(place)]
        else:
            (patterns if _is_path_pattern(place) else found).append(place)
    _check_name_images(empty, patterns)
    return found


def _images_of_folder(place: str) -> list[str]:
    """Return the sorted images in a folder or an archive."""
    folder = folder_or_archive(place)
    left_out = LeftOutEntries(folder)
    if is_url(folder):
        images = [
            joined_path(folder, path) for path in _images_among(files_below(folder), left_out)
        ]
    else:
        images = sorted(_ImageFinder(folder, left_out).images())
    left_out.warn()
    return images


def _check_name_images(empty: Sequence[str], patterns: Sequence[str]) -> None:
    """Raise one error that names folders without images, and patterns that match nothing."""
    faults = []
    if empty:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        faults.append(f"{len(empty)} folders hold no image ({suffixes}): {_paths_text(empty)}")
    if patterns:
        faults.append(
            f"no such file: {_paths_text(patterns)}. A shell does not expand a pattern that "
            "matches nothing or is in quotes: remove the quotes, or pass a folder"
        )
    if faults:
        raise InputError("\n".join(faults))


def _is_path_pattern(place: str) -> bool:
    """Return True for a pattern that names no file."""
    is_pattern = "*" in place or "?" in os.path.basename(place)
    return is_pattern and not (is_url(place) or os.path.lexists(place))


def _paths_text(places: Sequence[str]) -> str:
    return ", ".join(map(repr, places[:_N_SHOWN]))


def label_of(folder: str) -> str:
    """Return the name of a class in composed Unicode, with escapes for bytes that are not UTF-8."""
    return unicodedata.normalize("NFC", as_utf8(os.path.basename(folder)))


def _check_is_folder(root: str) -> None:
    if not os.path.isdir(root):
        reason = "is not a folder" if os.path.lexists(root) else "no such folder"
        reason = "is a file" if os.path.isfile(root) else reason
        raise InputError(f"{root!r}: {reason}; expected a folder with a folder per class")


def _class_folders(root: str, left_out: LeftOutEntries) -> list[str]:
    """Return the folder of each class, sorted by name."""
    _check_is_folder(root)
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as exc:
        raise InputError(f"{root!r} cannot be read: {exc.strerror or exc}") from exc
    folders = []
    for entry in entries:
        entry_type = _entry_type(entry, left_out)
        if entry_type == "file":
            left_out.add(_UNLABELED if _is_image(entry) else _FOREIGN, entry.path)
        elif entry_type == "folder":
            if _folder_contains(os.path.realpath(entry.path), os.path.realpath(root)):
                left_out.add(_UPWARD, entry.path)
            else:
                folders.append(entry.path)
    if not entries:
        raise InputError(f"{root!r} is empty: expected a folder per class, with images in it")
    _check_are_classes(root, [os.path.basename(folder) for folder in folders], left_out)
    return folders


def _check_are_classes(root: str, names: list[str], left_out: LeftOutEntries) -> None:
    """Check that there are folders, and that they are not splits."""
    shown = shown_url(root)
    if not names:
        raise InputError(
            f"{shown!r} has no folders in it: expected one per class{left_out.described('. ')}. To "
            "predict images without labels, pass a list of their paths"
        )
    if {name.lower() for name in names} <= SPLITS:
        raise InputError(
            f"{shown!r} holds the splits {', '.join(names)}, not classes: load one of them, as "
            f"in load_image_folder({shown!r}, split={names[0]!r})"
        )


class _ImageFinder:
    """A search for the images in the folder of a class that finds each once.

    Links must not lead to `others`, the folders of other classes. `owners` has the class of each
    folder and link target found so far. Links in both are resolved.
    """

    def __init__(
        self,
        folder: str,
        left_out: LeftOutEntries,
        others: Iterable[str] = (),
        owners: dict[str, str] | None = None,
    ) -> None:
        self._folder, self._place = folder, os.path.realpath(folder)
        self._left_out, self._others = left_out, list(others)
        self._owners = {} if owners is None else owners
        self._images: list[str] = []
        self._folders, self._links = [folder], list[str]()

    def images(self) -> list[str]:
        """Return the images below the folder."""
        visited: set[str] = set()
        # Links come last: their targets may have been visited under their own names.
        while self._folders or self._links:
            place = self._folders.pop() if self._folders else self._links.pop()
            real = os.path.realpath(place)
            if real not in visited:
                visited.add(real)
                self._visit(place, real)
        return self._images

    def _visit(self, place: str, real: str) -> None:
        if self._is_of_other_class(real):
            self._left_out.add(_TWICE, place)
        try:
            with os.scandir(place) as entries:
                for entry in entries:  # one by one, since a class may hold millions of images
                    self._add(entry)
        except OSError as exc:
            self._left_out.add(_LOCKED, place, exc.strerror or str(exc))

    def _add(self, entry: os.DirEntry[str]) -> None:
        entry_type = _entry_type(entry, self._left_out)
        if entry_type == "file":
            self._add_file(entry)
        elif entry_type == "folder" and entry.is_symlink():
            self._add_link(entry.path)
        elif entry_type == "folder":
            self._folders.append(entry.path)

    def _add_file(self, entry: os.DirEntry[str]) -> None:
        if not _is_image(entry):
            self._left_out.add(_FOREIGN, entry.path)
            return
        self._images.append(entry.path)
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if self._is_of_other_class(target) or self._is_near_others(target):
                self._left_out.add(_SHARED, entry.path)

    def _add_link(self, path: str) -> None:
        target = os.path.realpath(path)
        leads_up = target != self._place and _folder_contains(target, self._place)
        if leads_up or self._is_near_others(target):
            self._left_out.add(_UPWARD, path)
        else:
            self._links.append(path)

    def _is_of_other_class(self, real: str) -> bool:
        """Return True if another class has this place; else record it for this class."""
        return self._owners.setdefault(real, self._folder) != self._folder

    def _is_near_others(self, target: str) -> bool:
        """Return True for a place outside the own folder, and inside or above another class."""
        if _folder_contains(self._place, target):
            return False
        return any(
            _folder_contains(other, target) or _folder_contains(target, other)
            for other in self._others
        )


def _is_image(entry: os.DirEntry[str]) -> bool:
    # Faster than splitext, and the same for names that do not start with a dot.
    return entry.name.lower().endswith(_SUFFIXES)


def _entry_type(entry: os.DirEntry[str], left_out: LeftOutEntries) -> str | None:
    """Return "folder" or "file"; None for an entry that is left out with all below it."""
    if is_litter(entry.name):
        return None
    if entry.name.startswith("."):
        left_out.add(_FOREIGN, entry.path)
        return None
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        is_broken = entry.is_symlink() and not os.path.exists(entry.path)
        left_out.add(_BROKEN if is_broken else _SPECIAL, entry.path)
    except OSError as exc:
        reason = _BROKEN if entry.is_symlink() else _LOCKED
        left_out.add(reason, entry.path, exc.strerror or str(exc))
    return None


def _folder_contains(folder: str, place: str) -> bool:
    """Return True if a path is a folder or is below it; links of both are resolved."""
    return place == folder or place.startswith(os.path.join(folder, ""))


def _add_confusable_names(folders: list[str], left_out: LeftOutEntries) -> None:
    """Add class folders whose names are easily confused, or not printable."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        label = label_of(folder)
        spellings[unicodedata.normalize("NFKC", label).casefold().strip()].append(folder)
        if not os.path.basename(folder).isprintable():
            left_out.add("names of classes contain characters that cannot be printed", folder)
    for alike in spellings.values():
        labels = {label_of(folder) for folder in alike}
        reason = (
            "class folders have the same name in two Unicode forms, and are taken as one class"
            if len(labels) == 1
            else "class folders have names that differ in case, width or spaces only; rename them "
            "if they are one class"
        )
        for folder in alike if len(alike) > 1 else ():
            left_out.add(reason, folder)
