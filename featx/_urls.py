"""``is_url``, ``shown_url``, ``joined_path``: URLs as text, in the form of fsspec.

A file in an archive is written ``zip://cat.jpg::photos.zip``: its path there, and the archive.
"""

from __future__ import annotations

import os
import re
from typing import TypeGuard

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::.*://)")
_SECRET = re.compile(
    r"([?&#;][^=?&#;]*(?:sig|token|key|cred|secret|pass|pwd|auth|code|session)[^=?&#;]*=)[^&#;]*",
    re.IGNORECASE,
)
_USER = re.compile(r"[^/]*@|[^/:@]*:(?!\d*/)[^@]*@")  # a password may have slashes, not a port
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:\S*//[^\s'\"<>]+")
_PROTOCOL_OF_SUFFIX = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
}
_ARCHIVES = ("zip://", "tar://")
_LOCAL = ("file://", "local://")
_WEB = ("http://", "https://")


def is_url(item: object) -> TypeGuard[str]:
    """Return True for a URL, as a string.

    Examples
    --------
    >>> [is_url(path) for path in ("s3://bucket/a.jpg", "zip://a.jpg::b.zip", "a.jpg", "C:/a.jpg")]
    [True, True, False, False]
    """
    return isinstance(item, str) and ":" in item and _URL.match(item) is not None


def is_in_archive(url: str) -> bool:
    """Return True for the URL of an archive, or of a file in it."""
    return "::" in url and url.startswith(_ARCHIVES)


def is_on_web_server(url: str) -> bool:
    """Return True for the URL of a web server, which does not list its files."""
    return url.startswith(_WEB)


def local_path(url: str) -> str | None:
    """Return the path that the URL of a local file stands for; None for another URL.

    Examples
    --------
    >>> local_path("file:///photos/a.jpg"), local_path("s3://bucket/a.jpg")
    ('/photos/a.jpg', None)
    """
    start = next((start for start in _LOCAL if url.startswith(start)), None)
    return url.removeprefix(start) if start and "::" not in url else None


def shown_url(url: str) -> str:
    """Return a URL for messages: without user name, password and the values of secrets.

    Examples
    --------
    >>> shown_url("https://me:pw@host/a.jpg?page=2&X-Amz-Signature=0af3")
    'https://host/a.jpg?page=2&X-Amz-Signature=...'
    """
    return "::".join(map(_shown_link, url.split("::")))


def _shown_link(link: str) -> str:
    scheme, mark, rest = link.partition("://")
    found = _USER.match(rest)
    host = rest[found.end() :] if found else rest
    return scheme + mark + (_SECRET.sub(r"\1...", host) if mark else "")


def shown_text(text: str) -> str:
    """Return a text with its URLs as :func:`shown_url` returns them.

    Examples
    --------
    >>> shown_text("no route to https://me:pw@host/a.jpg")
    'no route to https://host/a.jpg'
    """
    return _URL_IN_TEXT.sub(lambda found: shown_url(found[0]), text)


def shown_path(path: object) -> str:
    """Return a path as it is, and a URL as :func:`shown_url` returns it."""
    return shown_url(path) if is_url(path) else str(path)


def archive_url(path: str | os.PathLike[str]) -> str | None:
    """Return the URL of the files in an archive, given by its path or URL; None for other files.

    Examples
    --------
    >>> archive_url("photos.zip"), archive_url("s3://bucket/photos.tar"), archive_url("photos")
    ('zip://::photos.zip', 'tar://::s3://bucket/photos.tar', None)
    """
    place = os.fspath(path)
    if place.startswith(_ARCHIVES):
        return None
    protocols = (
        protocol
        for suffix, protocol in _PROTOCOL_OF_SUFFIX.items()
        if place.lower().endswith(suffix)
    )
    return next((f"{protocol}://::{place}" for protocol in protocols), None)


def joined_path(folder: str, path: str) -> str:
    """Return the path or URL of a file below a folder, unless `path` is absolute or a URL.

    Examples
    --------
    >>> joined_path("s3://bucket/photos", "cat/1.jpg"), joined_path("zip://::photos.zip", "1.jpg")
    ('s3://bucket/photos/cat/1.jpg', 'zip://1.jpg::photos.zip')
    """
    if is_url(path) or not is_url(folder) or os.path.isabs(path):
        return path if is_url(path) else os.path.join(folder, path)
    first, mark, rest = folder.partition("::")
    name = path.removeprefix("./")
    if is_on_web_server(first):
        name = name.replace("#", "%23")  # else the rest would be a fragment, which is not sent
    return f"{first}{'' if first.endswith('/') else '/'}{name}{mark}{rest}"


def relative_path(path: str, folder: str) -> str:
    """Return the path of a file, given by its path or URL, relative to a folder that holds it.

    Examples
    --------
    >>> relative_path("zip://cat/1.jpg::photos.zip", "zip://::photos.zip")
    'cat/1.jpg'
    """
    if is_url(folder):
        path, folder = path.partition("::")[0], folder.partition("::")[0]
    return path.removeprefix(folder).lstrip("/" + os.sep)


def folder_of(path: str) -> str:
    """Return the folder of a file, given by its path or URL.

    Examples
    --------
    >>> folder_of("s3://bucket/photos/labels.csv"), folder_of("zip://labels.csv::photos.zip")
    ('s3://bucket/photos', 'zip://::photos.zip')
    """
    if not is_url(path):
        return os.path.dirname(path)
    first, mark, rest = path.partition("::")
    protocol, _, inner = first.partition("://")
    return f"{protocol}://{inner.rpartition('/')[0]}{mark}{rest}"


def file_name(path: str) -> str:
    """Return the name of a file, given by its path or URL.

    Examples
    --------
    >>> file_name("zip://cat/1.jpg::photos.zip"), file_name("https://host/1.jpg?page=2")
    ('1.jpg', '1.jpg')
    """
    return os.path.basename(path.partition("::")[0].partition("?")[0] if is_url(path) else path)


def suffix_of(path: str) -> str:
    """Return the ending of a file's name, in lower case.

    Examples
    --------
    >>> suffix_of("https://host/Labels.CSV?page=2"), suffix_of("zip://a.jpg::b.zip")
    ('.csv', '.jpg')
    """
    return os.path.splitext(file_name(path))[1].lower()
