"""A process that was forked from one in which TensorFlow ran cannot run it: it would wait forever.

A fork copies the thread that called it and no other, and TensorFlow's work waits for its threads.
"""

from __future__ import annotations

import os
import sys

from featx.exceptions import EngineError

_ran_before_fork = False


def check_can_run() -> None:
    """Check that a network can run in this process.

    Raises
    ------
    EngineError
        TensorFlow ran already when the process was forked.
    """
    if _ran_before_fork:
        raise EngineError(
            "this process was forked from one in which TensorFlow ran, and TensorFlow would wait "
            "here forever. Embed the samples before forking: cached rows are found in any process. "
            "Or start processes another way: n_jobs of scikit-learn and joblib does, and so does "
            "multiprocessing.get_context('spawn')."
        )


def _note_fork() -> None:
    global _ran_before_fork
    _ran_before_fork = _ran_before_fork or _is_running()


def _is_running() -> bool:
    """Tell whether TensorFlow was used; then it lets nobody change its number of threads."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    threading = tensorflow.config.threading
    n_threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(n_threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(n_threads)
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
