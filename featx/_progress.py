"""``progress_bar``, ``activity``, ``print_message``: what is being done, depending on `verbose`."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from collections.abc import Callable, Iterator

from featx._text import one_line, without_controls

_SHOWN_AFTER_S = 2.0
_pending: list[str] = []  # descriptions of activities, the latest last
_displays: list[Callable[[str | None], object]] = []  # the last one shows the activities


def print_message(text: str, *, verbose: int | bool | Callable[[int, int], object]) -> None:
    """Print a message on standard error if `verbose` is a number other than zero."""
    if verbose and not callable(verbose):
        print(without_controls(text), file=sys.stderr)


@contextlib.contextmanager
def activity(description: str) -> Iterator[None]:
    """Report what is being done, such as "building mobilenet_v2", to whoever shows activities.

    Examples
    --------
    >>> with displayed_by(print), activity("building tiny"):
    ...     print("...")
    building tiny
    ...
    None
    """
    _pending.append(description)
    _show_latest()
    try:
        yield
    finally:
        _pending.remove(description)
        _show_latest()


@contextlib.contextmanager
def displayed_by(show: Callable[[str | None], object]) -> Iterator[None]:
    """Call a function with each activity that begins, and with None when there is none."""
    hide_activities()
    _displays.append(show)
    try:
        yield
    finally:
        _displays.remove(show)
        _show_latest()


def hide_activities() -> None:
    """Hide what is being done until the next activity begins, so that other output has the line."""
    if _displays:
        _displays[-1](None)


@contextlib.contextmanager
def show_activities(verbose: int | bool | Callable[[int, int], object]) -> Iterator[None]:
    """Show activities in terminals and notebooks, if `verbose` is a number other than zero."""
    if not verbose or callable(verbose) or _displays or not _is_watched():
        yield
        return
    spinner = _Spinner()
    try:
        with displayed_by(spinner):
            yield
    finally:
        spinner(None)


def _is_watched() -> bool:
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _show_latest() -> None:
    if _displays:
        _displays[-1](_pending[-1] if _pending else None)


class _Spinner:
    """A line with the present activity, which disappears when it ends."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._update: Callable[[str], object] | None = None
        self._line: _NotebookLine | None = None

    def __call__(self, description: str | None) -> None:
        if description is None:
            self._stack.close()
            self._update = None
            return
        self._update = self._update or self._opened()
        self._update(one_line(description))

    def _opened(self) -> Callable[[str], object]:
        if _in_notebook():
            line = self._line = self._line or _NotebookLine()
            self._stack.callback(line.clear)
            return lambda text: line.show(f"{text} ...")
        from rich.console import Console
        from rich.text import Text

        spinner = Console(stderr=True).status("")
        self._stack.enter_context(spinner)
        return lambda text: spinner.update(Text(text))


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
        self._stack.enter_context(displayed_by(_ignore))  # the bar is enough
        if _in_notebook():
            bar = _NotebookBar(self._description, n_total)
            self._stack.callback(bar.finish)
            return bar
        return self._opened_in_terminal(n_total)

    def _opened_in_terminal(self, n_total: int) -> Callable[[int, str], None]:
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


def _ignore(_: str | None) -> None:
    """Show no activity."""


def _in_notebook() -> bool:
    """Return True in a kernel, whose displays can be updated; rich would need ipywidgets there."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _NotebookLine:
    """A line in the output of a cell."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str, *, element: str = "") -> None:
        """Show text, and an HTML element before it."""
        bundle = {"text/plain": text, "text/html": f"{element} {html.escape(text)}".strip()}
        self._handle.update(bundle, raw=True)

    def clear(self) -> None:
        """Leave an output without content, which takes no space, unlike empty text."""
        self._handle.update({}, raw=True)


class _NotebookBar:
    """A bar in a notebook, whose last text stays."""

    def __init__(self, description: str, n_total: int) -> None:
        self._description, self._n_total = description, n_total
        self._line = _NotebookLine()
        self._text = description

    def __call__(self, n_done: int, rate: str) -> None:
        self._text = f"{self._description}: {n_done:,} of {self._n_total:,}, {rate}"
        element = f'<progress value="{n_done}" max="{self._n_total}"></progress>'
        self._line.show(self._text, element=element)

    def finish(self) -> None:
        """Show the last text alone."""
        self._line.show(self._text)
