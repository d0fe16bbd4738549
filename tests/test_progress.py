"""Progress goes to standard error, for whoever asked for it."""

import pytest

from featx._progress import progress_bar


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
