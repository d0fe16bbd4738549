"""TensorFlow imported in a command: no greetings, and nothing else withheld."""

import subprocess
import sys

CODE = """
import logging, os, sys
from featx.cli import main
main._keep_tensorflow_quiet()
main._keep_tensorflow_quiet()
assert sys.meta_path.count(main._quiet_tensorflow) == 1
os.write(2, b"before\\n")
import tensorflow
assert main._quiet_tensorflow not in sys.meta_path
assert tensorflow.constant(1).numpy() == 1
assert tensorflow.__spec__.name == "tensorflow"
assert not logging.getLogger("tensorflow").isEnabledFor(logging.WARNING)
os.write(2, b"after\\n")
main._keep_tensorflow_quiet()
assert main._quiet_tensorflow not in sys.meta_path
"""


def test_quiet_tensorflow_hides_only_its_import():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "before\nafter\n")
