"""TensorFlow is loaded quietly by featx, and as ever by everyone else."""

import os
import subprocess
import sys

import pytest

from featx import _tensorflow

# Nothing else of TensorFlow's is hidden, nor what others write to descriptor 2 meanwhile.
IMPORTS = """
import os, sys, threading
import featx._tensorflow as quiet
quiet.keep_tensorflow_quiet()
quiet.keep_tensorflow_quiet()
assert sum(isinstance(each, quiet._QuietFinder) for each in sys.meta_path) == 1
assert sys.meta_path[0].find_spec("tensorflow", None) is None  # this module is not featx'
os.write(2, b"before\\n")
others = threading.Timer(0.2, lambda: os.write(2, b"another thread\\n"))
others.start()
import featx.engines.fold  # which imports Keras
others.join()
os.write(2, b"after\\n")
import logging, tensorflow
assert tensorflow.constant(1).numpy() == 1
assert not logging.getLogger("tensorflow").isEnabledFor(logging.WARNING)
print("python", file=sys.stderr)
"""


def test_import_by_featx_hides_only_tensorflow(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # which OpenVINO's converter sets
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = "before\nanother thread\nafter\npython\n"
    assert (done.returncode, done.stderr) == (0, expected)


def test_lines_of_others_are_kept(capfd):
    with _tensorflow._lines_of_tensorflow_hidden():
        os.write(2, b"I0000 00:00:1796090343.444282   25278 cudart_stub.cc:31] no cuda\n")
        os.write(2, b"a line of another library\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "a line of another library\n"


def test_failed_import_prints_all_lines(capfd):
    line = b"I0000 00:00:1796090343.444282   25278 cudart_stub.cc:31] no cuda\n"
    with pytest.raises(ZeroDivisionError), _tensorflow._lines_of_tensorflow_hidden():
        os.write(2, line) / 0
    os.write(2, b"restored\n")
    assert capfd.readouterr().err == line.decode() + "restored\n"


def test_python_stderr_is_visible_while_loading(capfd, monkeypatch):
    with open(2, "w", encoding="utf-8", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with _tensorflow._lines_of_tensorflow_hidden():
            print("progress", file=sys.stderr)
            assert capfd.readouterr().err == "progress\n"
        assert sys.stderr is stream


def test_closed_descriptor_hides_nothing():
    code = (
        "import os, featx._tensorflow as quiet\n"
        "os.close(2)\n"
        "with quiet._lines_of_tensorflow_hidden(): print('ran')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_log_level_of_user_is_kept(monkeypatch):
    finder = _tensorflow._QuietFinder()
    monkeypatch.setattr(_tensorflow, "_is_called_by_featx", lambda frame: True)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert finder.find_spec("tensorflow", None) is None
