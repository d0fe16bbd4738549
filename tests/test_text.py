"""Names from files are shown as text: on one line, without control characters."""

import pickle

import pytest

from featx._text import as_utf8, one_line, without_controls
from featx.digests.space import Space
from featx.exceptions import BadSampleError, FeatxWarning, FolderWarning, InputError, SampleFault

SHOWN = {
    "plain": "plain",
    "[red]markup[/red] :warning:": "[red]markup[/red] :warning:",
    "esc\x1b[2J\x1b]0;title\x07": r"esc\x1b[2J\x1b]0;title\x07",
    "one-byte escape \x9b2J": r"one-byte escape \x9b2J",
    "new\nline\r\n": r"new\nline\r\n",
    "next\x85line\u2028\u2029": r"next\x85line\u2028\u2029",
    "tab\tname": r"tab\tname",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\u2066isolate\u2069": r"\u2066isolate\u2069",
    "zero\u200bwidth\ufeff": r"zero\u200bwidth\ufeff",
    "tag\U000e0041": r"tag\U000e0041",
    "not UTF-8 \udcff": r"not UTF-8 \udcff",
    "\x7f\x00": r"\x7f\x00",
    r"C:\new\table": r"C:\new\table",
    "na\u00efve 漢字 \U0001f468\u200d\U0001f467": "na\u00efve 漢字 \U0001f468\u200d\U0001f467",
    "می\u200cخواهم": "می\u200cخواهم",
}


@pytest.mark.parametrize("name", SHOWN, ids=ascii)
def test_one_line_escapes_terminal_controls(name):
    assert one_line(name) == SHOWN[name]


def test_one_line_long_name_loses_its_middle():
    assert one_line("a" * 3000 + "b" * 3000, max_chars=101) == "a" * 50 + "…" + "b" * 50


def test_without_controls_keeps_lines_and_tabs():
    assert without_controls("a\n\tb\x1b\r\udcff") == "a\n\tb" + r"\x1b\r\udcff"


def test_as_utf8_escapes_nothing_else():
    assert as_utf8("\x1b\n漢\udcff") == "\x1b\n漢\\udcff"


@pytest.mark.parametrize("kind", [InputError, FolderWarning, FeatxWarning])
def test_error_text_holds_no_escapes(kind):
    unpickled = pickle.loads(pickle.dumps(kind("names: \x1b[2J\u202e\nmore")))
    assert str(unpickled) == "names: \\x1b[2J\\u202e\nmore"


def test_sample_fault_is_one_line():
    fault = SampleFault(0, "new\nline\x1b.png", "bad\nheader")
    assert str(BadSampleError([fault], 1)).splitlines()[1] == (
        r"  [0] new\nline\x1b.png: bad\nheader"
    )


def test_space_label_from_file_is_one_line():
    space = Space.from_json(
        {"label": "esc\x1b[2J\n" + "x" * 10**6, "identity": {"feature_shape": [2]}}
    )
    assert space.label.startswith(r"esc\x1b[2J\nxxx")
    assert len(space.label) < 1100
