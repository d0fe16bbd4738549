"""``progress_bar`` and ``print_message``: output on standard error, depending on `verbose`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from featx._text import without_controls

_SHOWN_AFTER_S = 2.0


def print_message(text: str, *, verbose: int | bool | Callable[[int, int], object]) -> None:
    """Print a message on standard error if `verbose` is a number other than zero."""
    if verbose and not callable(verbose):
        print(without_controls(text), file=sys.stderr)


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: int, verbose: int | bool | Callable[[int, int], object]
) -> Iterator[Callable[[int], None]]:
    """Show the number of processed samples of a total, their rate and the time left.

    Yield a function to call with the number of samples processed since the last call. If `verbose`
    is a number other than zero, a bar is shown for work of more than two seconds; a function is
    called with the number of processed samples and the total.

    Examples
    --------
    >>> with progress_bar("embedding", total=3, verbose=print) as advance:
    ...     advance(2)
    ...     advance(1)
    2 3
    3 3
    """
    n_done = 0
    with contextlib.ExitStack() as stack:
        is_shown = callable(verbose) or bool(verbose)
        show: Callable[[int, int], object]
        show = verbose if callable(verbose) else _ProgressBar(description, stack)

        def advance(n_more: int) -> None:
            nonlocal n_done
            n_done += n_more
            if is_shown:
                show(n_done, total)

        yield advance


class _ProgressBar:
    """A bar on standard error, shown once the work has taken long enough."""

    def __init__(self, description: str, stack: contextlib.ExitStack) -> None:
        self._description = description
        self._stack = stack
        self._start_s = time.monotonic()
        self._show: Callable[[int, str], None] | None = None

    def __call__(self, n_done: int, n_total: int) -> None:
        elapsed_s = time.monotonic() - self._start_s
        if elapsed_s < _SHOWN_AFTER_S:
            return
        self._show = self._show or self._opened(n_total)
        self._show(n_done, f"{n_done / elapsed_s:.0f}/s")

    def _opened(self, n_total: int) -> Callable[[int, str], None]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        bar = self._stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        task = bar.add_task(self._description, total=n_total, rate="")
        return lambda n_done, rate: bar.update(task, completed=n_done, rate=rate)
