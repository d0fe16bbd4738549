"""Progress goes to standard error, for whoever asked for it."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from featx._progress import activity, displayed_by, hide_activities, progress_bar, show_activities


@pytest.mark.parametrize("verbose", [0, False])
def test_progress_bar_not_asked_for_is_silent(verbose, capsys):
    with progress_bar("embedding", total=3, verbose=verbose) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("featx._progress._SHOWN_AFTER_S", 0.0)


def test_progress_bar_short_work_shows_nothing(capsys):
    with progress_bar("embedding", total=30, verbose=1) as advance:
        advance(30)
    assert capsys.readouterr() == ("", "")


def test_progress_bar_calls_a_function(capsys):
    told = []
    with progress_bar("x", total=5, verbose=lambda *numbers: told.append(numbers)) as advance:
        advance(2)
        advance(3)
    assert told == [(2, 5), (5, 5)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("at_once")
def test_progress_bar_shows_what_is_done(capsys):
    with progress_bar("embedding", total=30, verbose=1) as advance:
        for _ in range(3):
            advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert "embedding" in err
    assert "30/30" in err


@pytest.mark.usefixtures("at_once")
def test_progress_bar_error_inside_is_passed_on(capsys):
    def interrupted():
        with progress_bar("x", total=3, verbose=1) as advance:
            advance(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "1/3" in capsys.readouterr().err


def test_activities_are_shown_innermost_first():
    shown = []
    with displayed_by(shown.append), activity("fitting"), activity("building"):
        pass
    assert shown == ["fitting", "building", "fitting", None]


def test_inner_display_silences_the_outer():
    outer, inner = [], []
    with displayed_by(outer.append), activity("a"), displayed_by(inner.append), activity("b"):
        pass
    assert (outer, inner) == (["a", None, "a", None], ["b", "a"])


def test_activity_in_a_pipe_shows_nothing(capfd):
    with show_activities(1), activity("building tiny"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("verbose", "is_shown"), [(1, True), (0, False)])
def test_activity_in_a_terminal_is_shown(verbose, is_shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with show_activities(verbose), activity("building [tiny]\n"):
        pass
    assert ("building [tiny]" in capsys.readouterr().err) is is_shown


class _Bundles(list):
    """What displays showed, and the number of displays."""

    n_displays = 0

    def counted(self, handle):
        self.n_displays += 1
        return handle


@pytest.fixture
def kernel(monkeypatch):
    """A stand-in for IPython in a kernel, which records what a display shows."""
    shown = _Bundles()
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=None)
    ipython.display = ModuleType("IPython.display")
    ipython.display.display = lambda bundle, raw, display_id: shown.counted(handle)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


@pytest.mark.usefixtures("at_once")
def test_progress_bar_in_notebook_leaves_a_line(kernel, capsys):
    with progress_bar("embedding <3", total=1200, verbose=1) as advance:
        advance(1100)
    assert kernel[0]["text/plain"].startswith("embedding <3: 1,100 of 1,200, ")
    assert '<progress value="1100" max="1200"></progress> embedding &lt;3' in kernel[0]["text/html"]
    assert kernel[-1]["text/plain"] == kernel[0]["text/plain"]
    assert kernel[-1]["text/html"].startswith("embedding &lt;3: 1,100 of 1,200, ")
    assert capsys.readouterr() == ("", "")


def test_activity_in_notebook_disappears(kernel):
    with show_activities(1), activity("building tiny"):
        assert kernel[-1]["text/plain"] == "building tiny ..."
    assert kernel[-1] == {}


def test_activities_in_notebook_share_an_output(kernel):
    with show_activities(1):
        for _ in range(3):
            with activity("building tiny"):
                pass
    assert kernel.n_displays == 1


def test_activity_hides_for_other_output():
    shown = []
    with displayed_by(shown.append), activity("fit"):
        hide_activities()
        with activity("building"):
            pass
    assert shown == ["fit", None, "building", "fit", None]
