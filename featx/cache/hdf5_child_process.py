"""``inspect_shards``, ``inspect_weights``: untrusted HDF5 files, checked in a child process.

Damaged or hostile metadata can crash libhdf5, or make it hang or take all memory (1,000 random bit
flips: one crash, two hangs; 2026-11). So a file without an index is opened by a child process with
limits on time and memory. It prints a line of JSON for each file: the layout of a shard, null for
weights that are plain arrays, or a fault. If the child dies, the file that it was reading counts as
damaged, and another child continues with the next.
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
from typing import Any, NamedTuple

from featx.cache.schema import ShardLayout

_SECONDS_PER_FILE = 10
_STARTUP_S = 60
_MEMORY_BYTES = 2 * 2**30
_READY = "ready"
# -P: no module in the working directory may be imported.
_COMMAND = ("-P", "-m", "featx.cache.hdf5_child_process")


class HDF5Fault(NamedTuple):
    """The reason why a file is refused; `is_damage` is False if it just cannot be read now."""

    reason: str
    is_damage: bool


# The kind of a file, "shard" or "weights", and its path.
_Question = tuple[str, str]


def inspect_shards(paths: Sequence[Path]) -> list[ShardLayout | HDF5Fault]:
    """Return the layout of each shard, or the fault of the file."""
    found = _inspect_in_child([("shard", str(path)) for path in paths])
    return [each if isinstance(each, HDF5Fault) else ShardLayout.from_json(each) for each in found]


def inspect_weights(path: Path) -> HDF5Fault | None:
    """Return the fault of a weight file; None if it holds only plain arrays."""
    return _inspect_in_child([("weights", str(path))])[0]


def _inspect_in_child(questions: Sequence[_Question]) -> list[Any]:
    """Return the answer of a child process, or a fault, for each question."""
    answers: list[Any] = []
    has_failed = False
    while len(answers) < len(questions):
        try:
            lines, how_it_ended = _ask_inspection_child(questions[len(answers) :])
        except OSError as exc:
            return answers + [HDF5Fault(str(exc), is_damage=False)] * (
                len(questions) - len(answers)
            )
        found = map(json.loads, lines)
        answers += [HDF5Fault(**each) if isinstance(each, dict) else each for each in found]
        if len(answers) == len(questions):
            break
        # Twice for each file, since a child may run out of time or memory for another reason.
        has_failed = has_failed and not lines
        if has_failed:
            kind, _ = questions[len(answers)]
            reason = f"not a sound {kind}: libhdf5 {how_it_ended} while opening it"
            answers.append(HDF5Fault(reason, is_damage=True))
        has_failed = not has_failed
    return answers


def _ask_inspection_child(questions: Sequence[_Question]) -> tuple[list[str], str]:
    """Return the answers of a child process, one line each, and a message on its end."""
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
        written = exc.stdout or b""
        output, end = written if isinstance(written, str) else written.decode(), "hung"
    else:
        output, end = child.stdout, f"ended with {child.returncode}"
    ready, *answers = output.split("\n")
    if ready != _READY:
        raise OSError(f"no process can be started to inspect {questions[0][1]}: it {end}")
    # After the last newline there is an incomplete answer, or nothing.
    return answers[:-1], end


def answer_inspections(lines: Iterable[str]) -> Iterator[str]:
    """Answer each line, the kind and path of a file in JSON, with a line of JSON."""
    from featx.cache.hdf5_checks import HDF5StructureError, check_plain, read_layout

    for line in lines:
        kind, path = json.loads(line)
        with _limited_time():
            try:
                found: Any = (read_layout if kind == "shard" else check_plain)(Path(path))
            except (HDF5StructureError, MemoryError) as exc:
                found = HDF5Fault(str(exc) or "needs too much memory", is_damage=True)._asdict()
            except OSError as exc:
                found = HDF5Fault(str(exc), is_damage=False)._asdict()
        yield json.dumps(found)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """Let the system kill this process if the context takes too long, even inside C code."""
    if not hasattr(signal, "setitimer"):
        yield  # on Windows there is only the limit of the parent process
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
    """Answer the questions on standard input; the child process runs this."""
    import featx.cache.hdf5_checks  # noqa: F401 - loaded before memory is limited

    _limit_memory()
    print(_READY, flush=True)
    for line in answer_inspections(sys.stdin):
        print(line, flush=True)


if __name__ == "__main__":
    main()
