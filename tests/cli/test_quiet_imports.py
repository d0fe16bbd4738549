"""TensorFlow imported in a command: no greetings, and nothing else withheld."""

import os
import subprocess
import sys

CODE = """
import os, sys
from featx.cli.main import keep_imports_quiet
keep_imports_quiet()
def is_waiting():
    return any(type(finder).__name__ == "_QuietFinder" for finder in sys.meta_path)
assert is_waiting()
os.write(2, b"before\\n")
import tensorflow
assert not is_waiting()
assert tensorflow.constant(1).numpy() == 1
assert tensorflow.__spec__.name == "tensorflow"
os.write(2, b"after\\n")
keep_imports_quiet()
assert not is_waiting()
"""


def test_keep_imports_quiet_withholds_only_what_the_import_says():
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}  # as the command has it
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == "before\nafter\n"
