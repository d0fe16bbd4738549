"""Measured methods run in child processes of their own, which print what they found as JSON."""

import json
import os
import subprocess
import sys


def answer_of(script, *arguments, blas_threads=None):
    """Run a script in a fresh process; return the last line that it printed.

    Linear algebra gets as many threads as its library takes, or ``blas_threads``.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    if blas_threads:
        environment["OPENBLAS_NUM_THREADS"] = str(blas_threads)
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
