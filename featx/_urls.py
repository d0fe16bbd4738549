"""``is_url``, ``shown_url``: URLs as text, as fsspec reads them.

A file in an archive is written ``zip://cat.jpg::photos.zip``: its path there, and the archive.
"""

from __future__ import annotations

import re
from typing import TypeGuard

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::.*://)")
_SECRET = re.compile(r"sig|token|key|cred|secret|pass|auth", re.IGNORECASE)
_LOCAL = ("file://", "local://")


def is_url(item: object) -> TypeGuard[str]:
    """Return True for a URL, as a string.

    Examples
    --------
    >>> [is_url(path) for path in ("s3://bucket/a.jpg", "zip://a.jpg::b.zip", "a.jpg", "C:/a.jpg")]
    [True, True, False, False]
    """
    return isinstance(item, str) and ":" in item and _URL.match(item) is not None


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
    if not mark:
        return link
    rest, mark_of_query, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    pairs = (pair.partition("=") for pair in query.split("&"))
    shown = "&".join(
        f"{name}{equals}{'...' if _SECRET.search(name) else value}" for name, equals, value in pairs
    )
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{mark_of_query}{shown}"


def joined_url(folder: str, path: str) -> str:
    """Return the URL of a file below a folder.

    Examples
    --------
    >>> joined_url("s3://bucket/photos", "cat/1.jpg"), joined_url("zip://::photos.zip", "1.jpg")
    ('s3://bucket/photos/cat/1.jpg', 'zip://1.jpg::photos.zip')
    """
    first, mark, rest = folder.partition("::")
    is_root = first.endswith("/") or not first
    return f"{first}{'' if is_root else '/'}{path}{mark}{rest}"
