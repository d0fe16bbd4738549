"""Untrusted HDF5 files, shards or weights, inspected by a child process.

Damaged or hostile metadata can crash libhdf5, or make it hang or take all memory (facts of 2026-11:
1,000 random flips, one crash, two hangs). So a file without an index is opened by a child with
limits on time and memory, which answers with one JSON line a file: the places of the parts of a
shard, or whether weights are plain arrays. If the child dies, the file it was at is to blame, and
another child goes on with the next.
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
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from featx.cache.hdf5 import ShardLayout

_SECONDS_PER_FILE = 10
_STARTUP_S = 60
_MEMORY_BYTES = 2 * 2**30
_READY = "ready"
# -P: whatever lies in the working directory is not to be imported.
_COMMAND = ("-P", "-m", "featx.cache.inspect_hdf5")


class Fault(NamedTuple):
    """Why a file gave no layout.

    Attributes
    ----------
    reason : str
    is_damage : bool
        False if the file could only not be read for now.
    """

    reason: str
    is_damage: bool


class _Question(NamedTuple):
    """A question to a child process.

    Attributes
    ----------
    kind : {"shard", "weights"}
    path : str
    """

    kind: str
    path: str


def inspect_shards(paths: Sequence[Path]) -> list[ShardLayout | Fault]:
    """Find where the parts of shards lie, whatever the files are.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of ShardLayout or Fault
        The layout of each, or why there is none.
    """
    from featx.cache.hdf5 import ShardLayout

    answers = _answers([_Question("shard", str(path)) for path in paths])
    return [found if isinstance(found, Fault) else ShardLayout(*found) for found in answers]


def inspect_weights(path: Path) -> Fault | None:
    """Return the fault of a weight file, unless it holds only plain arrays.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Fault or None
        None if the file holds only plain arrays.
    """
    return _answers([_Question("weights", str(path))])[0]


def _answers(questions: Sequence[_Question]) -> list[Any]:
    """Return the answer of a child process, or a fault, for each question."""
    answers: list[Any] = []
    has_failed = False
    while len(answers) < len(questions):
        try:
            lines, how_it_ended = _ask_child(questions[len(answers) :])
        except OSError as exc:
            return answers + [Fault(str(exc), is_damage=False)] * (len(questions) - len(answers))
        answers += [_understood(json.loads(line)) for line in lines]
        if len(answers) == len(questions):
            break
        # A child that ran out of time or memory may only have been unlucky once.
        has_failed = has_failed and not lines
        if has_failed:
            kind = questions[len(answers)].kind
            reason = f"not a sound {kind}: libhdf5 {how_it_ended} while opening it"
            answers.append(Fault(reason, is_damage=True))
        has_failed = not has_failed
    return answers


def _understood(answer: Any) -> Any:
    return Fault(**answer) if isinstance(answer, dict) else answer


def _ask_child(questions: Sequence[_Question]) -> tuple[list[str], str]:
    """Return the answers that a child gave, one line each, and how it ended."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        child = subprocess.run(  # noqa: S603 - this very interpreter, on this very module
            [sys.executable, *_COMMAND],
            input="".join(f"{json.dumps(question)}\n" for question in questions),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_STARTUP_S + _SECONDS_PER_FILE * len(questions),
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
        raise OSError(f"no process can be started to look into {questions[0].path}: it {end}")
    # What follows the last newline is half an answer, or nothing.
    return answers[:-1], end


def answer(lines: Iterable[str]) -> Iterator[str]:
    """Answer each line, the kind and path of a file in JSON, with a line of JSON.

    The answer is the layout of a shard, null for weights that are plain arrays, or a fault.
    """
    from featx.cache.hdf5 import ShardStructureError, read_layout
    from featx.cache.plain_hdf5 import HDF5StructureError, check_plain

    for line in lines:
        kind, path = json.loads(line)
        with _limited_time():
            try:
                found: Any = (read_layout if kind == "shard" else check_plain)(Path(path))
            except (ShardStructureError, HDF5StructureError, MemoryError) as exc:
                found = Fault(str(exc) or "needs too much memory", is_damage=True)._asdict()
            except OSError as exc:
                found = Fault(str(exc), is_damage=False)._asdict()
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
    import featx.cache.hdf5
    import featx.cache.plain_hdf5  # noqa: F401 - loaded before memory is limited

    _limit_memory()
    print(_READY, flush=True)
    for line in answer(sys.stdin):
        print(line, flush=True)


if __name__ == "__main__":
    main()
