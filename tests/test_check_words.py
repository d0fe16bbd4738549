"""What `scripts/check_words.py` rejects, and where."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Write files, check them, and return exit status and printed lines."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from check_words import main

    def run(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return main(tmp_path), capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("one of the twins", "twins -> duplicate"),
        ("Twin", "Twin -> duplicate"),
        ("twin_of(row)", "twin -> duplicate"),
        ("class RowTwin2:", "Twin -> duplicate"),
        ("made anew", "anew -> again; made anew: rebuilt"),
        ("mend", "mend -> repair, fix"),
        ("was mended", "mended -> repair, fix"),
        ("mends it", "mends -> repair, fix"),
        ("vouches", "vouches -> guarantee, confirm"),
        ("taught", "taught -> trained; teacher probabilities"),
        ("a pass under way", "under way -> pending, running"),
        ("under_way", "under way -> pending, running"),
        ("NoteBook", "Note Book -> fact store"),
        ("note books", "note books -> fact store"),
    ],
)
def test_check_words_names_word_and_better_ones(check, text, found):
    assert check({"README.md": f"# featx\n\n{text}\n"}) == (1, [f"README.md:3: {found}"])


def test_check_words_finds_word_across_comment_lines(check):
    status, lines = check({"scripts/check": "    # while a pass is under\n    # way\n"})
    assert (status, lines) == (1, ["scripts/check:1: under way -> pending, running"])


@pytest.mark.parametrize("text", ["recommended, amended", "ax.twinx()", "underway", "a notebook"])
def test_check_words_other_words_pass(check, text):
    assert check({"docs/guide.md": text}) == (0, [])


def test_check_words_rejects_openings_of_docstrings(check):
    code = '''\
"""Of the module."""


class A:
    """Tell whether it is.

    Parameters
    ----------
    b : int
        Of the class.
    """

    def c(self):
        """Say what it is.

        Of the two, this is the longer paragraph.
        """
        return "Of no importance, since it is no docstring"
'''
    assert check({"featx/a.py": code}) == (
        1,
        [
            "featx/a.py:1: \"Of ...\" -> a noun phrase, such as 'Shape of ...'",
            'featx/a.py:5: "Tell whether ..." -> Return whether, Check whether',
            "featx/a.py:10: \"Of ...\" -> a noun phrase, such as 'Shape of ...'",
            'featx/a.py:14: "Say ..." -> Return, Describe, Report',
        ],
    )


def test_check_words_reports_all_files_at_once(check):
    places = ["benchmarks/a.py", "examples/a.py", "featx/b/c.py", "tests/d.py", "CHANGELOG.md"]
    status, lines = check(dict.fromkeys(places, "anew = 1\n"))
    assert status == 1
    assert sorted(line.split(":")[0] for line in lines) == sorted(places)


def test_check_words_skips_glossary_and_other_files(check):
    skipped = ["docs/glossary.md", "benchmarks/out/a.json", "elsewhere/a.md", "setup.cfg"]
    skipped += ["docs/_build/html/.buildinfo"]
    assert check(dict.fromkeys(skipped, "twin")) == (0, [])
