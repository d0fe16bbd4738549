"""Place, ``files_below``: files of a folder, an archive, a bucket or a server, by fsspec.

What a store reports of a file (its ETag, or size and time of change) identifies its content in the
file index, as what ``stat`` returns does for local files. So known files are not downloaded again.

User names, passwords and signatures in URLs are neither stored nor shown (see ``featx/_urls.py``).
So errors of other packages, whose texts have them, are not the causes of those raised here.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import io
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, TypeVar

from featx._text import one_line
from featx._threads import run_ahead
from featx._urls import (
    archive_url,
    is_in_archive,
    is_on_web_server,
    is_url,
    local_path,
    shown_text,
    shown_url,
)
from featx.digests.hashing import digest_of, digest_of_json
from featx.exceptions import InputError, MissingExtraError, UnreadableImageError
from featx.inputs.archives import NOT_IN_ARCHIVE, OpenArchive, plain_path
from featx.inputs.file_index import file_key, is_settled
from featx.inputs.items import content_of_file, file_status

N_REQUESTS = 32  # at once, since a request is mostly waiting
_LISTED_FROM = 16  # files of one folder, which is then listed instead of asking for each
_ATTEMPTS = 5
_SILENCE_S = 60.0  # of a server, after which a request is repeated
_FIRST_PAUSE_S = 0.2  # doubled after each attempt
_DOWN_AFTER = 8  # requests in a row that failed in all attempts
_CLOCK_MARGIN_S = 60.0  # between a server's clock and ours, where only the time tells a change
_WITHOUT_HOST = ("memory",)
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3"}
_ETAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "generation", "VersionId")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "updated")
_GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_CHANGED = "changed while it was read: repeat the call when nothing writes to the file"
_MAX_OPEN_ARCHIVES = 128  # of a process, which may open few files
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
            raise UnreadableImageError(_why_not_read(exc)) from None
        if state is not None and state.key is not None and self.state(url).key != state.key:
            raise UnreadableImageError(_CHANGED)
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
            by_folder[self._folder(url)].append(place)
        found: dict[str, FileState | UnreadableImageError] = {}
        for folder, places in by_folder.items():
            if self._has_folders and len(places) >= _LISTED_FROM and not folder.endswith("/"):
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
            raise UnreadableImageError(_why_not_read(exc)) from None
        if info.get("type") == "directory":
            raise UnreadableImageError("a folder, not a file")
        return self._state_in(info, self._path(url))

    def _listed(self, folder: str) -> dict[str, FileState | UnreadableImageError]:
        try:
            infos = self._requested(lambda: self.fs.ls(folder, detail=True))
        except _GONE:
            return {}
        except Exception as exc:  # of any library
            reason = UnreadableImageError(_why_not_read(exc))
            return defaultdict(lambda: reason)
        files = (info for info in infos if info.get("type") == "file")
        return {info["name"]: self._state_in(info, info["name"]) for info in files}

    def _state_in(self, info: dict[str, Any], path: str) -> FileState:
        etag = next((str(info[name]).strip('"') for name in _ETAGS if info.get(name)), None)
        changed_s = next((_as_seconds(info[name]) for name in _TIMES if info.get(name)), None)
        if etag is None and changed_s is None:
            return FileState(None, 0.0)
        key = digest_of_json(["file", self._protocol, path, info.get("size"), etag, changed_s])
        if etag is not None and self._has_folders:
            return FileState(bytes.fromhex(key), 0.0)  # a store gives each content another one
        if etag is not None:
            return FileState(bytes.fromhex(key), changed_s or 0.0)
        settled_s = (changed_s or 0.0) + _CLOCK_MARGIN_S
        if not (self._has_folders or is_settled(settled_s)):
            return FileState(None, 0.0)  # servers that make files on demand report the present
        return FileState(bytes.fromhex(key), settled_s)

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

    def _folder(self, url: str) -> str:
        return self._path(url).rpartition("/")[0] if self._has_folders else ""

    def _path(self, url: str) -> str:
        return self.fs._strip_protocol(url.rpartition("::")[2])


class _Archive(Place):
    """Files in an archive, which have the state of the archive."""

    def __init__(self, url: str) -> None:
        self._protocol, _, rest = url.partition("://")
        archive = rest.partition("::")[2]
        self._archive = local_path(archive) or archive
        self._outer = place_of(self._archive)

    def paths(self) -> list[str]:
        """Return the paths of all files in the archive."""
        return self._opened.paths()

    @functools.cached_property
    def _key(self) -> bytes | None:
        """Key of the archive when it is opened."""
        return self._outer.state(self._archive).key

    @functools.cached_property
    def _unshared(self) -> OpenArchive:
        return OpenArchive(opened_file(self._archive), self._protocol)

    @property
    def _opened(self) -> OpenArchive:
        if self._key is None:  # another call may find another archive
            return self._unshared
        # A process that was forked would move the position in the file of this one.
        return _open_archive(self._archive, self._protocol, self._key, process=os.getpid())

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
            archive = self._opened
            absent = (url for url in urls if not archive.holds(_path_in_archive(url)))
            return {url: UnreadableImageError(NOT_IN_ARCHIVE) for url in absent}
        except MissingExtraError:
            raise
        except Exception as exc:  # of any library
            reason = UnreadableImageError(f"its archive: {_why_not_read(exc)}")
            return dict.fromkeys(urls, reason)

    def _state_in(self, archive: FileState, url: str) -> FileState:
        if archive.key is None:
            return archive
        path = os.fsencode(_path_in_archive(url))
        return FileState(digest_of(archive.key, b"::", path), archive.changed_s)

    def _content(self, url: str) -> bytes:
        return self._opened.content(_path_in_archive(url))


@functools.lru_cache(_MAX_OPEN_ARCHIVES)  # the list of a large archive takes seconds
def _open_archive(place: str, protocol: str, key: bytes, *, process: int) -> OpenArchive:
    """Open an archive, given by its path or URL, once for each state and process."""
    opened = OpenArchive(opened_file(place), protocol)
    if place_of(place).state(place).key != key:
        raise UnreadableImageError(_CHANGED)
    return opened


def _path_in_archive(url: str) -> str:
    return url.partition("::")[0].partition("://")[2]


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
        below = sorted(_paths_below(folder))
    except MissingExtraError:
        raise
    except Exception as exc:  # of any library
        raise InputError(f"{shown} cannot be listed: {_why_not_read(exc)}") from None
    if not below:
        raise InputError(f"{shown} holds no files: expected images")
    return below


def _paths_below(folder: str) -> list[str]:
    if is_in_archive(folder):
        start = plain_path(_path_in_archive(folder))
        start += "/" if start else ""
        paths = _Archive(_name_of_place(folder)).paths()
        return [path.removeprefix(start) for path in paths if path.startswith(start)]
    fs, path = _opened_file_system(folder)
    names = _with_retries(lambda: fs.find(path))
    # A name that ends in a slash is an object that stands for a folder.
    files = (name for name in names if name != path and not name.endswith("/"))
    return [name.removeprefix(path).lstrip("/") for name in files]


def opened_file(path: str) -> BinaryIO:
    """Open a file, given by its path or URL: see :func:`opened_url`."""
    return opened_url(path) if is_url(path) else open(path, "rb")


def opened_url(url: str) -> BinaryIO:
    """Open the file of a URL, which is read where it is needed.

    A file in an archive is read at once, and so is one of a server that sends whole files only.
    InputError is raised if it cannot be opened.
    """
    try:
        if not is_in_archive(url):
            fs, path = _opened_file_system(url)
            file = _with_retries(lambda: fs.open(path, "rb"))
            if not is_on_web_server(url) or _has_parts(file):
                return file
            file.close()
        return io.BytesIO(place_of(url).read(url))
    except MissingExtraError:
        raise
    except Exception as exc:  # of any library
        reason = f"cannot be read: {_why_not_read(exc)}"
        raise InputError(f"{shown_url(url)!r} {reason}") from None


def _has_parts(file: BinaryIO) -> bool:
    """Return True if the end of a server's file can be read alone."""
    try:
        file.seek(-1, os.SEEK_END)
        _with_retries(lambda: file.read(1))
        file.seek(0)
    except (ValueError, OSError):
        return False
    return True


def _opened_file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec

    try:
        options = _options_of_server() if is_on_web_server(url) else {}
        return fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as exc:
        protocol = url.partition("://")[0]
        cure = _EXTRAS.get(protocol)
        hint = f"pip install 'featx[{cure}]'" if cure else one_line(exc)
        raise MissingExtraError(f"URLs with {protocol}:// need another package: {hint}") from exc
    except Exception as exc:  # of any library
        raise UnreadableImageError(_why_not_read(exc)) from None


def _options_of_server() -> dict[str, Any]:
    """Return options of requests that end if the server is silent, however large the file is."""
    import aiohttp

    return {"timeout": aiohttp.ClientTimeout(None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S)}


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


def _why_not_read(exc: BaseException) -> str:
    """Return the reason why a file cannot be read, without secrets of its URL."""
    cause = exc.__cause__ if isinstance(exc, FileNotFoundError) and exc.__cause__ else exc
    status = getattr(cause, "status", None)
    if status in (404, 410):
        return "no such file"
    if status:
        return f"the server answers {status} {getattr(cause, 'message', '')}".strip()
    if isinstance(cause, FileNotFoundError):
        return "no such file"
    if isinstance(cause, TimeoutError):
        return "the server does not answer"
    if isinstance(cause, UnreadableImageError):
        return str(cause)
    text = one_line(shown_text(str(cause)))
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _as_seconds(value: Any) -> float | None:
    """Return a time, as a file system reports it, in whole seconds; None if it is not a time."""
    if isinstance(value, str):
        try:
            value = email.utils.parsedate_to_datetime(value)
        except ValueError:
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
    if isinstance(value, str):
        return None
    return float(int(value if isinstance(value, int | float) else value.timestamp()))
