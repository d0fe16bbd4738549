"""Progress bars, for whoever asked for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: int, verbose: int | bool
) -> Iterator[Callable[[int], None]]:
    """Show how many samples are done, how fast, and the time left.

    Parameters
    ----------
    description : str
    total : int
        Number of samples.
    verbose : int
        Zero shows nothing.

    Yields
    ------
    callable
        To be called with the number of samples done since the last call.
    """
    if not verbose:
        yield lambda n_done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(n_done: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=n_done, rate=f"{speed:.0f}/s" if speed else "")

        yield advance
