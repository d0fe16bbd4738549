"""``checked_download``: published weights, downloaded by Keras and checked; advice if that fails.

Keras waits for ever for a server that is silent. It keeps a file whose hash is wrong, and one that
a killed process left unfinished, which makes each later call fail as well. Here, a silent server is
an error, and a damaged file is removed, so that the next call downloads it again.

Keras also writes the file in its place, where another process takes the part that is there for a
damaged file, or overwrites it. Here, one process at a time builds a network that may need a
download (:func:`one_process_at_a_time`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from featx.backbones.registry import Network
from featx.digests.hashing import digest_of
from featx.digests.keras_settings import keras_home
from featx.exceptions import WeightsError

SILENCE_S = 20  # without a byte from the server, after which a download has failed
_STILL_S = 1  # without a change, after which a file is not being downloaded


def weights_folder() -> Path:
    """Return the folder of the files that Keras has downloaded, by Keras' own rules."""
    home = keras_home()
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "models"  # noqa: S108


@contextlib.contextmanager
def one_process_at_a_time(network: Network, arguments: dict[str, Any]) -> Iterator[None]:
    """Let other processes that build a network with these arguments wait, if it may download.

    It cannot if it was built before, and no file has changed in the folder of weights since then.
    """
    path = _lock_path(network, arguments)
    if _weights_were_found(path):
        yield
        return
    with _locked(path):
        yield
        with contextlib.suppress(OSError):  # the next process waits as well
            path.write_text(json.dumps(_weight_files()), encoding="utf-8")


def _lock_path(network: Network, arguments: dict[str, Any]) -> Path:
    digest = digest_of(repr(sorted(arguments.items())).encode()).hex()[:16]
    return weights_folder().parent / "featx" / f"{network.name}-{digest}.lock"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which the system releases if the process ends."""
    with contextlib.ExitStack() as stack:
        # A read-only folder, or a file system or platform without locks: as if there were one
        # process.
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(path, flags, 0o644)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _weights_were_found(path: Path) -> bool:
    """Return True if all files are unchanged that were there when a network was built."""
    try:
        before = json.loads(path.read_bytes())
        now = _weight_files()
        return all(now.get(name) == state for name, state in before.items())
    except (OSError, ValueError, AttributeError):  # never built, or another process writes it
        return False


def _weight_files() -> dict[str, list[int]]:
    """Return the size and the time of the last change of each file in the folder of weights."""
    with os.scandir(weights_folder()) as entries:
        states = {entry.name: entry.stat() for entry in entries}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


@contextlib.contextmanager
def checked_download(network: Network) -> Iterator[None]:
    """Let Keras build a network with its published weights; raise WeightsError if it has none.

    Inside this context, new sockets of all threads have a timeout, unless the process has set one.
    """
    try:
        with _timeout_of_sockets():
            yield
    except Exception as exc:
        if file := _path_in_keras_traceback(exc, "weights_path"):
            raise _unreadable_weights_error(network, file, exc) from exc
        if not (file := _path_in_keras_traceback(exc, "download_target")):
            raise  # it is not about a file
        if isinstance(exc, ValueError) and not _is_being_downloaded(file):
            _remove_weights_file(file)  # its hash is wrong; after other errors, Keras removes it
        _close_responses(exc)
        # The message gives the cause; three tracebacks of the download would bury it.
        raise WeightsError(
            f"the pretrained weights of {network.name!r} are not on this machine and cannot be "
            f"downloaded ({exc}). {advice_without_download(network)}"
        ) from None


def _close_responses(exc: BaseException | None) -> None:
    """Close the connections that errors of urllib keep open for as long as they exist."""
    while exc is not None:
        if isinstance(exc, HTTPError):
            exc.close()
        exc = exc.__context__


def advice_without_download(network: Network) -> str:
    """Return a sentence on how to go on without a download."""
    file = "pass weights=FILE, a .h5 file of the network without its classifier; "
    if network.scales_for_published_weights:
        file = ""
    return (
        "Without a download: run this on a machine with internet access, and copy ~/.keras/models "
        f"from there to {os.fspath(weights_folder())!r}; {file}pass another backbone, such as "
        "backbone='tiny', which needs none; or pass weights=None for random weights."
    )


def _unreadable_weights_error(network: Network, file: Path, exc: Exception) -> WeightsError:
    """Return the error for a file that Keras cannot load, which is removed if it is damaged."""
    what = f"the pretrained weights of {network.name!r} in {os.fspath(file)!r}"
    if type(exc) is not OSError:  # as h5py reports a file that is cut off, or not HDF5
        return WeightsError(f"{what} cannot be loaded: {exc}. {advice_without_download(network)}")
    if _is_being_downloaded(file):
        return WeightsError(
            f"{what} are not complete ({exc}): another process seems to download them. Repeat the "
            f"call once it has finished. {advice_without_download(network)}"
        )
    _remove_weights_file(file)
    cure = "Remove the file" if file.exists() else "The file is removed"
    return WeightsError(
        f"{what} were damaged ({exc}). {cure}, so that the next call downloads it again. "
        f"{advice_without_download(network)}"
    )


def _path_in_keras_traceback(exc: Exception, variable: str) -> Path | None:
    """Return the path in a local variable of Keras where it failed; its messages name no file."""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        is_of_keras = frame.f_globals.get("__name__", "").startswith("keras.")
        path = frame.f_locals.get(variable)
        if is_of_keras and isinstance(path, str):
            return Path(path)
    return None


def _is_being_downloaded(file: Path) -> bool:
    """Return True if another process is downloading a file."""
    with contextlib.suppress(OSError):
        before = file.stat()
        time.sleep(_STILL_S)
        after = file.stat()
        return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    return False


def _remove_weights_file(file: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone already, or the folder is read-only
        file.unlink()


@contextlib.contextmanager
def _timeout_of_sockets() -> Iterator[None]:
    """Give new sockets a timeout, since the function with which Keras downloads takes none."""
    before = socket.getdefaulttimeout()
    if before is None:
        socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
