"""Shard files of which nothing is known, looked into by a child process.

Damaged or hostile metadata can crash libhdf5, or make it hang or take all memory (facts of 2026-11:
1,000 random flips, one crash, two hangs). So a file without an index is opened by a child with
limits on time and memory, which answers with the places of the parts, one JSON line a file. If the
child dies, the file it was at is to blame, and another child goes on with the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featx._hdf5 import ShardLayout

_SECONDS_PER_FILE = 10
_STARTUP_S = 60
_MEMORY_BYTES = 2 * 2**30
_READY = "ready"
_COMMAND = ("-m", "featx.inspection")


def inspect_shards(paths: Sequence[Path]) -> list[ShardLayout | str]:
    """Find where the parts of shards lie, whatever the files are.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of ShardLayout or str
        The layout of each; a string says why a file is not a sound shard.

    Raises
    ------
    OSError
        No child could be started, so nothing is known of any file.
    """
    from featx._hdf5 import ShardLayout

    answers: list[ShardLayout | str] = []
    while len(answers) < len(paths):
        lines, how_it_ended = _ask_child(paths[len(answers) :])
        for line in lines:
            answer = json.loads(line)
            answers.append(answer if isinstance(answer, str) else ShardLayout(*answer))
        if len(answers) < len(paths):
            answers.append(f"not a sound shard: libhdf5 {how_it_ended} while opening it")
    return answers


def _ask_child(paths: Sequence[Path]) -> tuple[list[str], str]:
    """Return the answers that a child gave, one line each, and how it ended."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        child = subprocess.run(  # noqa: S603 - this very interpreter, on this very module
            [sys.executable, *_COMMAND],
            input="".join(f"{json.dumps(str(path))}\n" for path in paths),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_STARTUP_S + _SECONDS_PER_FILE * len(paths),
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        said = exc.stdout or b""
        output, end = said if isinstance(said, str) else said.decode(), "hung"
    else:
        output, end = child.stdout, f"ended with {child.returncode}"
    ready, *answers = output.split("\n")
    if ready != _READY:
        raise OSError(f"no process can be started to look into {paths[0]}: it {end}")
    # What follows the last newline is half an answer, or nothing.
    return answers[:-1], end


def answer(lines: Iterable[str]) -> Iterator[str]:
    """Answer each line, the path of a file in JSON, with its layout or a fault, in JSON."""
    from featx._hdf5 import ShardStructureError, read_layout

    for line in lines:
        with _limited_time():
            try:
                found: object = read_layout(Path(json.loads(line)))
            except (ShardStructureError, OSError, MemoryError) as exc:
                found = str(exc) or type(exc).__name__
        yield json.dumps(found)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """Let the system kill this process if it stays too long inside, in C code too."""
    if not hasattr(signal, "setitimer"):
        yield  # on Windows the parent's own limit has to do
        return
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_PER_FILE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Be the child."""
    import featx._hdf5  # noqa: F401 - loaded before memory is limited

    _limit_memory()
    print(_READY, flush=True)
    for line in answer(sys.stdin):
        print(line, flush=True)


if __name__ == "__main__":
    main()
