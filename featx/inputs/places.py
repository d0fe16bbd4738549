"""Place, ``files_below``: files of a folder, an archive, a bucket or a server, by fsspec.

What a store reports of a file (its ETag, or size and time of change) identifies its content in the
file index, as what ``stat`` returns does for local files. So known files are not downloaded again.

User names, passwords and signatures in URLs are neither stored nor shown (see ``featx/_urls.py``).
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import io
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, TypeVar

from featx._text import one_line
from featx._threads import run_ahead
from featx._urls import archive_url, is_in_archive, is_on_web_server, is_url, shown_url
from featx.digests.hashing import digest_of, digest_of_json
from featx.exceptions import InputError, MissingExtraError, UnreadableImageError
from featx.inputs.file_index import file_key
from featx.inputs.items import content_of_file, file_status

N_REQUESTS = 32  # at once, since a request is mostly waiting
_LISTED_FROM = 16  # files of one folder, which is then listed instead of asking for each
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.2  # doubled after each attempt
_DOWN_AFTER = 8  # requests in a row that failed in all attempts
_MAX_MEMBER_BYTES = 2**30
_CLOCK_MARGIN_S = 60.0  # between a server's clock and ours, where only the time tells a change
_WITHOUT_HOST = ("memory",)
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3"}
_SLASHES = re.compile("/+")
_NOT_IN_ARCHIVE = "no such file in the archive"
_ETAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "generation", "VersionId")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "updated")
_GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_WAIT_STATUSES = (408, 425, 429)  # of HTTP: too early, too many requests, too slow

_Result = TypeVar("_Result")


class FileState(NamedTuple):
    """State of a file: `key` identifies its content, None if the store reports nothing that does.

    `changed_s` is the time of its last change.
    """

    key: bytes | None
    changed_s: float


class Place(ABC):
    """A place of files, given by their paths or URLs. Several threads may use it."""

    @abstractmethod
    def states(self, urls: Sequence[str]) -> list[FileState | UnreadableImageError]:
        """Return the state of each file, or the reason why it cannot be read."""

    @abstractmethod
    def state(self, url: str) -> FileState:
        """Return the present state of one file."""

    def absent(self, urls: Sequence[str]) -> dict[str, UnreadableImageError]:
        """Return the reason for each file that is missing, where `states` does not look for it."""
        return {}

    @abstractmethod
    def _content(self, url: str) -> bytes: ...

    def read(self, url: str, state: FileState | None = None) -> bytes:
        """Return the content of a file.

        UnreadableImageError is raised if it cannot be read, or has another state than `state` after
        it was read.
        """
        try:
            content = self._content(url)
        except MissingExtraError:
            raise
        except Exception as exc:  # of any library
            raise UnreadableImageError(_why_not_read(exc, url)) from exc
        if state is not None and state.key is not None and self.state(url).key != state.key:
            raise UnreadableImageError(
                "changed while it was read: repeat the call when nothing writes to the file"
            )
        return content


class _Disk(Place):
    """Local files."""

    def states(self, urls: Sequence[str]) -> list[FileState | UnreadableImageError]:
        """Ask for the status of each file."""
        return [_state_or_reason(self, path) for path in urls]

    def state(self, url: str) -> FileState:
        """Return the present state of one file."""
        status = file_status(url)
        changed_s = max(status.st_mtime, status.st_ctime)
        return FileState(file_key(os.path.abspath(url), status), changed_s)

    def _content(self, url: str) -> bytes:
        return content_of_file(url)


class _Store(Place):
    """Files with states of their own: a bucket, a server, memory."""

    def __init__(self, url: str) -> None:
        self._protocol = url.partition("://")[0]
        self.fs, _ = _opened_file_system(url)
        self._n_failed = 0  # requests in a row, each repeated to no avail
        self._has_folders = not is_on_web_server(url)

    def states(self, urls: Sequence[str]) -> list[FileState | UnreadableImageError]:
        """List folders of which several files are wanted, and ask for each of the others."""
        by_folder: dict[str, list[int]] = defaultdict(list)
        for place, url in enumerate(urls):
            by_folder[url.rpartition("/")[0] if self._has_folders else ""].append(place)
        found: dict[str, FileState | UnreadableImageError] = {}
        for folder, places in by_folder.items():
            if self._has_folders and len(places) >= _LISTED_FROM:
                listed = self._listed(folder)
                missing = UnreadableImageError("no such file")
                found |= {urls[at]: listed.get(self._path(urls[at]), missing) for at in places}
        others = list(dict.fromkeys(url for url in urls if url not in found))
        ask = functools.partial(_state_or_reason, self)
        found |= zip(others, run_ahead(ask, others, n_threads=N_REQUESTS), strict=True)
        return [found[url] for url in urls]

    def state(self, url: str) -> FileState:
        """Return the present state of one file."""
        try:
            info = self._requested(lambda: self.fs.info(self._path(url)))
        except Exception as exc:  # of any library
            raise UnreadableImageError(_why_not_read(exc, url)) from exc
        if info.get("type") == "directory":
            raise UnreadableImageError("a folder, not a file")
        return self._state_in(info, self._path(url))

    def _listed(self, folder: str) -> dict[str, FileState | UnreadableImageError]:
        try:
            infos = self._requested(lambda: self.fs.ls(self._path(folder), detail=True))
        except _GONE:
            return {}
        except Exception as exc:  # of any library
            reason = UnreadableImageError(_why_not_read(exc, folder))
            return defaultdict(lambda: reason)
        files = (info for info in infos if info.get("type") == "file")
        return {info["name"]: self._state_in(info, info["name"]) for info in files}

    def _state_in(self, info: dict[str, Any], path: str) -> FileState:
        etag = next((str(info[name]).strip('"') for name in _ETAGS if info.get(name)), None)
        times = (_as_seconds(info[name]) for name in _TIMES if info.get(name))
        changed_s = next((seconds for seconds in times if seconds is not None), None)
        if etag is None and changed_s is None:
            return FileState(None, 0.0)
        key = digest_of_json(["file", self._protocol, path, info.get("size"), etag, changed_s])
        if etag is not None and self._has_folders:
            return FileState(bytes.fromhex(key), 0.0)  # a store gives each content another one
        margin_s = _CLOCK_MARGIN_S if etag is None else 0.0
        return FileState(bytes.fromhex(key), (changed_s or 0.0) + margin_s)

    def _content(self, url: str) -> bytes:
        return self._requested(lambda: self.fs.cat_file(self._path(url)))

    def _requested(self, request: Callable[[], _Result]) -> _Result:
        """Return the result of a request, which is repeated unless the server seems to be down."""
        is_down = self._n_failed >= _DOWN_AFTER
        try:
            result = request() if is_down else _with_retries(request)
        except Exception as exc:  # of any library
            self._n_failed += _may_pass(exc)
            raise
        self._n_failed = 0
        return result

    def _path(self, url: str) -> str:
        return self.fs._strip_protocol(url.rpartition("::")[2])


class _Archive(Place):
    """Files in an archive, which have the state of the archive."""

    def __init__(self, url: str) -> None:
        self._url, self._archive = url, url.partition("::")[2]
        self._outer = place_of(self._archive)

    @functools.cached_property
    def opened(self) -> OpenArchive:
        """The archive, opened once for each of its states."""
        key = self._outer.state(self._archive).key
        # A process that was forked would move the position in the file of this one.
        return (
            OpenArchive(self._url) if key is None else _shared_archive(self._url, key, os.getpid())
        )

    def states(self, urls: Sequence[str]) -> list[FileState | UnreadableImageError]:
        """Return the states of files, which are not looked up in the archive."""
        archive = _state_or_reason(self._outer, self._archive)
        if isinstance(archive, UnreadableImageError):
            reason = UnreadableImageError(f"its archive: {archive}")
            return [reason for _ in urls]
        return [self._state_in(archive, url) for url in urls]

    def state(self, url: str) -> FileState:
        """Return the present state of one file."""
        return self._state_in(self._outer.state(self._archive), url)

    def absent(self, urls: Sequence[str]) -> dict[str, UnreadableImageError]:
        """Look up files in the list of the archive."""
        try:
            holds = self.opened.holds
            return {url: UnreadableImageError(_NOT_IN_ARCHIVE) for url in urls if not holds(url)}
        except MissingExtraError:
            raise
        except Exception as exc:  # of any library
            reason = UnreadableImageError(f"its archive: {_why_not_read(exc, self._archive)}")
            return dict.fromkeys(urls, reason)

    def _state_in(self, archive: FileState, url: str) -> FileState:
        if archive.key is None:
            return archive
        path = url.partition("::")[0]
        return FileState(digest_of(archive.key, b"::", os.fsencode(path)), archive.changed_s)

    def _content(self, url: str) -> bytes:
        return self.opened.content(url)


class OpenArchive:
    """An archive whose list of files is read. Several threads may use it."""

    def __init__(self, url: str, *, max_bytes: int = _MAX_MEMBER_BYTES) -> None:
        self._fs, _ = _opened_file_system(url)
        self._max_bytes = max_bytes  # of a file, which may be compressed to little
        self._reading = threading.Lock()  # threads share one open file
        tar = getattr(self._fs, "tar", ())  # which looks for a name in the list of all files
        self._headers = {_SLASHES.sub("/", header.name): header for header in tar}

    def files_below(self, url: str) -> list[str]:
        """Return the paths of all files below a folder, relative to it."""
        folder = self._member(url)
        names = self._fs.find(folder)
        return [name.removeprefix(folder).strip("/") for name in names if name != folder]

    def holds(self, url: str) -> bool:
        """Return True if the archive has a file."""
        return bool(self._fs.isfile(self._member(url)))

    def content(self, url: str) -> bytes:
        """Return the content of a file."""
        with self._reading:
            if not self.holds(url):
                raise UnreadableImageError(_NOT_IN_ARCHIVE)
            size_bytes = self._fs.info(self._member(url))["size"]
            if size_bytes > self._max_bytes:
                expected = f"expected at most {self._max_bytes:,}"
                raise UnreadableImageError(f"unpacks to {size_bytes:,} bytes: {expected}")
            return self._read(self._member(url))

    def _read(self, name: str) -> bytes:
        if not self._headers:
            content: bytes = self._fs.cat_file(name)
            return content
        with self._fs.tar.extractfile(self._headers[name]) as file:
            return bytes(file.read())

    def _member(self, url: str) -> Any:
        return self._fs._strip_protocol(url.partition("::")[0])


@functools.lru_cache(maxsize=4)  # the list of a large archive takes seconds
def _shared_archive(url: str, state: bytes, process: int) -> OpenArchive:
    """Open an archive, once for each state and process."""
    return OpenArchive(url)


class Places:
    """The places of files, each opened once."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._opening = threading.Lock()

    def of(self, url: str) -> Place:
        """Return the place of a file.

        MissingExtraError is raised if the package that opens it is not installed, and
        UnreadableImageError if no package does.
        """
        name = _name_of_place(url)
        with self._opening:
            if name not in self._places:
                self._places[name] = place_of(url)
            return self._places[name]


def place_of(url: str) -> Place:
    """Return a new place that holds a file, given by its path or URL: see :meth:`Places.of`."""
    if not is_url(url):
        return _Disk()
    name = _name_of_place(url)
    return _Archive(name) if is_in_archive(url) else _Store(name)


def _state_or_reason(place: Place, url: str) -> FileState | UnreadableImageError:
    """Return the state of a file, or the reason why it cannot be read."""
    try:
        return place.state(url)
    except UnreadableImageError as exc:
        return exc


def _name_of_place(url: str) -> str:
    """Return the URL of the root of an archive, a bucket or a server; empty for local files."""
    if not is_url(url):
        return ""
    first, _, rest = url.partition("::")
    protocol, _, path = first.partition("://")
    if is_in_archive(url):
        return f"{protocol}://::{rest}"
    if rest:
        return f"{protocol}::{_name_of_place(rest)}"
    return f"{protocol}://{'' if protocol in _WITHOUT_HOST else path.partition('/')[0]}"


def folder_or_archive(path: str | os.PathLike[str]) -> str:
    """Return the path or URL of a folder, with ``~`` expanded; for an archive, that of its root."""
    place = os.fspath(path)
    place = place if is_url(place) else os.path.expanduser(place)
    return place if os.path.isdir(place) else archive_url(place) or place


def files_below(folder: str) -> list[str]:
    """Return the paths of all files below a folder, given by its URL, relative to it, sorted.

    InputError is raised if it holds none, or cannot be listed.

    Examples
    --------
    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/listed/cat/1.jpg", b"")
    >>> files_below("memory://listed")
    ['cat/1.jpg']
    """
    shown = repr(shown_url(folder))
    if is_on_web_server(folder):
        raise InputError(
            f"{shown}: web servers do not list their files: pass the URLs, such as those of a table"
        )
    try:
        below = sorted(_files_below(folder))
    except MissingExtraError:
        raise
    except Exception as exc:  # of any library
        raise InputError(f"{shown} cannot be listed: {_why_not_read(exc, folder)}") from exc
    if not below:
        raise InputError(f"{shown} holds no files: expected images")
    return below


def _files_below(folder: str) -> list[str]:
    if is_in_archive(folder):
        return _Archive(_name_of_place(folder)).opened.files_below(folder)
    fs, path = _opened_file_system(folder)
    names = _with_retries(lambda: fs.find(path))
    return [name.removeprefix(path).strip("/") for name in names if name != path]


def opened_file(path: str) -> BinaryIO:
    """Open a file, given by its path or URL: see :func:`opened_url`."""
    return opened_url(path) if is_url(path) else open(path, "rb")


def opened_url(url: str) -> BinaryIO:
    """Open the file of a URL: one in an archive is read at once, others where they are needed.

    InputError is raised if it cannot be opened.
    """
    try:
        if is_in_archive(url):
            return io.BytesIO(place_of(url).read(url))
        fs, path = _opened_file_system(url)
        return _with_retries(lambda: fs.open(path, "rb"))
    except MissingExtraError:
        raise
    except Exception as exc:  # of any library
        reason = f"cannot be read: {_why_not_read(exc, url)}"
        raise InputError(f"{shown_url(url)!r} {reason}") from exc


def _opened_file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as exc:
        protocol = url.partition("://")[0]
        cure = _EXTRAS.get(protocol)
        hint = f"pip install 'featx[{cure}]'" if cure else one_line(exc)
        raise MissingExtraError(f"URLs with {protocol}:// need another package: {hint}") from exc
    except Exception as exc:  # of any library
        raise UnreadableImageError(_why_not_read(exc, url)) from exc


def _with_retries(function: Callable[[], _Result]) -> _Result:
    """Call a function, and again after a pause if a connection fails or a server is busy."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return function()
        except Exception as exc:  # of any library
            if not _may_pass(exc):
                raise
        time.sleep(_FIRST_PAUSE_S * 2**attempt)
    return function()


def _may_pass(exc: BaseException) -> bool:
    """Return True for an error that may not come again."""
    cause = exc.__cause__ if isinstance(exc, FileNotFoundError) and exc.__cause__ else exc
    status = getattr(cause, "status", None)  # of aiohttp's errors
    if status is not None:
        return status >= 500 or status in _WAIT_STATUSES
    if isinstance(cause, _GONE):
        return False
    return isinstance(cause, OSError | EOFError) or type(cause).__module__.startswith("aiohttp")


def _why_not_read(exc: BaseException, url: str) -> str:
    """Return the reason why a file cannot be read, without secrets of its URL."""
    cause = exc.__cause__ if isinstance(exc, FileNotFoundError) and exc.__cause__ else exc
    status = getattr(cause, "status", None)
    if status in (404, 410):
        return "no such file"
    if status is not None:
        return f"the server answers {status} {getattr(cause, 'message', '')}".strip()
    if isinstance(cause, FileNotFoundError):
        return "no such file"
    if isinstance(cause, UnreadableImageError):
        return str(cause)
    text = one_line(str(cause).replace(url, shown_url(url)))
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _as_seconds(value: Any) -> float | None:
    """Return a time, as a file system reports it, in whole seconds; None for other text."""
    if isinstance(value, str):
        parsers = (email.utils.parsedate_to_datetime, datetime.fromisoformat)
        for parse in parsers:
            with contextlib.suppress(ValueError):
                return float(int(parse(value).timestamp()))
        return None
    return float(int(value if isinstance(value, int | float) else value.timestamp()))
