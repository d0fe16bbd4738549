"""Measured methods run in child processes of their own, which print what they found as JSON."""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from unittest import mock


def answer_of(script, *arguments, blas_threads=None, is_smoke=False):
    """Run a script in a fresh process; return the last line that it printed.

    Linear algebra gets as many threads as its library takes, or ``blas_threads``. A smoke run
    measures nothing; it takes place here, where all that a fresh process waits for is loaded.
    """
    arguments = [*map(str, arguments)]
    printed = (
        _printed_here(script, arguments) if is_smoke else _printed(script, arguments, blas_threads)
    )
    return json.loads(printed.splitlines()[-1])


def _printed(script, arguments, blas_threads):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    if blas_threads:
        environment["OPENBLAS_NUM_THREADS"] = str(blas_threads)
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _printed_here(script, arguments):
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", [script, *arguments]), contextlib.redirect_stdout(printed):
        runpy.run_path(script, run_name="__main__")
    return printed.getvalue()
