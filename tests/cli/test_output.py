"""Tables and messages for people: every number is there, and names are not cut."""

import numpy as np
import pytest

from featx.backbones.registry import list_backbones
from featx.cli import output
from featx.cli.demo import DemoRow
from featx.evaluation.metrics import evaluate
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    EngineError,
    InputError,
    ParameterError,
    ParameterFault,
    ParameterWarning,
    SampleFault,
    UntrustedTypesError,
    WeightsError,
)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def test_print_table_aligns_numbers_right(capsys):
    output.print_table("title", ("name", "#n"), [["a", 1], ["b", 1000]])
    out = capsys.readouterr().out
    assert out.startswith("title")
    assert "│ a    │    1 │" in out


@pytest.mark.parametrize("name", ["COLUMNS", "FORCE_COLOR"])
def test_print_table_outside_terminal_cuts_nothing(name, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setenv(name, "20")
    cells = ["inception_resnet_v2" * 5, "last used" * 20]
    output.print_table("", ("name", "#time"), [cells])
    assert f"│ {cells[0]} │ {cells[1]} │" in capsys.readouterr().out.splitlines()


def test_print_table_shows_names_as_text(capsys):
    names = ("[red]a[/red]", "[/bold]", ":warning:", "#1", "esc\x1b[2J\n")
    output.print_table(":smile: [b]title", [f"#{name}" for name in names], [names])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ":smile: [b]title"
    for line in (lines[2], lines[4]):
        shown = [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]
        assert shown == [*names[:-1], r"esc\x1b[2J\n"]


def test_print_table_huge_name_loses_middle(capsys):
    output.print_table("", ("name",), [["a" * 10**5]])
    assert f"│ {'a' * 500}…{'a' * 500} │" in capsys.readouterr().out.splitlines()


def test_print_evaluation_shows_every_measure(capsys):
    output.print_evaluation(evaluate(["cat", "cat", "dog"], ["cat", "dog", "dog"]))
    out = capsys.readouterr().out
    for shown in (
        "accuracy 0.667 (0.208 to 0.939, 95%",
        "macro",
        "weighted",
        "precision",
        "F1",
        "0.500",
    ):
        assert shown in out
    assert "confusion" in out
    assert "calibration" not in out


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes standard output a terminal of a width."""

    def make(width):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    return make


def evaluated(n_classes):
    """Return the evaluation of classes of which the first is taken for the last, 3 of 5 times."""
    names = [f"class number {number}" for number in range(n_classes)]
    true = np.repeat(names, 5)
    predicted = true.copy()
    predicted[:3] = names[-1]
    predicted[5] = names[0]
    return evaluate(true, predicted)


def test_print_evaluation_wide_matrix_becomes_pairs(terminal, capsys):
    terminal(80)
    output.print_evaluation(evaluated(10))
    out = capsys.readouterr().out
    lines = [line.split("│")[1:-1] for line in out.splitlines() if "│" in line]
    pairs = [[cell.strip() for cell in line] for line in lines if len(line) == 4]
    assert pairs == [
        ["class number 0", "class number 9", "3", "0.600"],
        ["class number 1", "class number 0", "1", "0.200"],
    ]
    assert "2 of 2 confused pairs, the most frequent first" in out
    assert "wider than the terminal (see --json)" in out


def test_print_evaluation_matrix_that_fits_is_whole(terminal, capsys):
    terminal(80)
    output.print_evaluation(evaluated(3))
    out = capsys.readouterr().out
    assert "confusion (rows: true class, columns: predicted)" in out
    assert "│ class number 0 │              2 │              0 │              3 │" in out


def test_print_evaluation_wide_without_mistakes(terminal, capsys):
    terminal(15)
    output.print_evaluation(evaluate(["cat", "dog"], ["cat", "dog"]))
    assert "no class is confused with another" in capsys.readouterr().out


def test_print_table_narrow_terminal_wraps_names(terminal, capsys):
    terminal(30)
    output.print_table("", ("name", "#n"), [["abcdefghij" * 3, 1]])
    shown = "".join(
        line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines()[3:5]
    )
    assert shown == "abcdefghij" * 3


def test_print_evaluation_shows_direction_of_miscalibration(capsys):
    proba = [[0.99, 0.01], [0.01, 0.99], [0.01, 0.99]]
    output.print_evaluation(evaluate(["a", "a", "b"], ["a", "b", "b"], proba=proba))
    assert "calibration error 0.3" in (out := capsys.readouterr().out)
    assert "predictions are overconfident)" in out
    proba = [[0.7, 0.3], [0.3, 0.7], [0.3, 0.7]]
    output.print_evaluation(evaluate(["a", "a", "b"], ["a", "b", "b"], proba=proba))
    assert ": not clearly different from 1)" in capsys.readouterr().out


def test_print_backbones_names_every_network(capsys):
    output.print_backbones(list_backbones())
    out = capsys.readouterr().out
    assert all(network.name in out for network in list_backbones())
    assert "inside the network" in out
    assert "86.7%" in out


def test_print_cache_shows_each_space(capsys):
    space = {
        "digest": "0123456789abcdef",
        "label": "tiny_tuned, pooling avg",
        "file": "tuned.featx",
        "n_rows": 12,
        "n_hits": 5,
        "last_used": "2026-11-24T22:00:00+00:00",
        "n_shards": 1,
        "size_bytes": 2_500_000,
        "graph_bytes": 1_700_000,
    }
    sizes = {"size_bytes": 2_500_000, "graph_bytes": 1_700_000}
    output.print_cache({"path": "/c", "n_rows": 12, **sizes, "spaces": [space]})
    out = capsys.readouterr().out
    for shown in ("/c: 12 rows, 2.5 MB; graphs, 1.7 MB", "01234567", "tuned.featx: tiny"):
        assert shown in out


@pytest.mark.parametrize("report", ["/somewhere/report.html", None])
def test_print_demo_names_every_place(report, capsys):
    places = {name: f"/somewhere/{name}" for name in ("images", "cache", "model", "example")}
    row = DemoRow("digits", 200, 1597, "raw pixels", 0.92, [0.9, 0.94], 0, 0.5)
    mistake = {"file": "/somewhere/1/7.png", "true": "1", "predicted": "7", "confidence": 0.99}
    gain = {"difference": 0.2, "interval": [0.1, 0.3]}
    result = {"rows": [row], "mistakes": [mistake], "gain": gain, "machine": "2 cores"}
    result |= {**places, "prediction": "A", "cache_bytes": 7_300_000, "report": report}
    output.print_demo(result)
    out = capsys.readouterr().out
    assert all(place in out for place in [*places.values(), "/somewhere/1/7.png"])
    for shown in ("0.920 ± 0.020", "+0.200 (+0.100 to +0.300)", "7.3 MB", "200 images", "2 cores"):
        assert shown in out
    assert ("file:///somewhere/report.html" in out) == (report is not None)
    assert ("featx[report]" in out) == (report is None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("extractor__batch_size", "--batch-size 0: why"),
        ("backbone", "--backbone 0: why"),
        ("extractor__backbone_params", "--param 0: why"),
        ("random_state", "--seed 0: why"),
        ("path", "0: why"),
        ("unfreeze", "--fine-tune 0: why"),
        ("fine_tune__unfreeze", "--fine-tune 0: why"),
        ("fine_tune__batch_size", "--tune batch_size=0: why"),
        ("fine_tune__distill_to__pooling", "--tune distill_to__pooling=0: why"),
    ],
)
def test_at_the_shell_names_the_option(name, shown):
    assert output.at_the_shell(ParameterError.of(name, 0, "why")) == shown


def test_at_the_shell_lists_several_faults():
    faults = [ParameterFault("head", "'no'", "expected a head."), "folds cannot be made"]
    shown = "2 faulty options:\n  --head 'no': expected a head.\n  folds cannot be made"
    assert output.at_the_shell(ParameterError("Owner has 2 faults", faults)) == shown


def test_at_the_shell_leaves_names_unchanged():
    shown = output.at_the_shell(BadSampleError([SampleFault(0, "my head=3.png", "missing")], 1))
    assert "  [0] my head=3.png: missing\n" in shown
    assert "--on-error nan" in shown


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (
            WeightsError("pass weights=FILE or backbone='tiny'."),
            "pass --weights FILE or --backbone tiny.",
        ),
        (WeightsError("or pass weights=None for"), "or pass --weights none for"),
        (BackboneError("no graph; pass layer=None, or"), "no graph; pass no --layer, or"),
        (BackboneError("pass input_size=(height, width)"), "pass --input-size PIXELS"),
        (BackboneError("name it with layer="), "name it with --layer"),
        (EngineError("or pass precision='bfloat16'"), "or pass --precision bfloat16"),
        (ParameterWarning("preprocessing='auto': none"), "--preprocessing auto: none"),
        (BackboneError("'a/layer=3.png' and my_layer=3"), "'a/layer=3.png' and my_layer=3"),
        (InputError("a label views=3"), "a label views=3"),
    ],
)
def test_at_the_shell_settings_are_options(problem, shown):
    assert output.at_the_shell(problem) == shown


def test_at_the_shell_repeats_option_per_type():
    shown = output.at_the_shell(UntrustedTypesError("It holds two types.", ["a.B", "c.D"]))
    assert shown == "It holds two types. If you trust them, name them: --trusted a.B --trusted c.D"


def test_status_in_file_writes_each_step(capsys):
    with output.status("demo") as on_step:
        on_step("one")
        on_step("two")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "- one\n- two\n")


def test_status_shows_steps_as_text(capsys):
    with output.status("demo") as on_step:
        on_step("[/bold] \x1b[2J")
    assert capsys.readouterr().err == "- [/bold] \\x1b[2J\n"


def test_status_updates_the_spinner_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.status("demo") as on_step:
        on_step("one")
    assert "- one" not in capsys.readouterr().err


def test_wrap_words_breaks_no_word():
    line = "  it's '/a/path of/two words.png', don't break-it or lose-it"
    wrapped = output.wrap_words(line, 24).split("\n")
    assert wrapped == [
        "  it's",
        "  '/a/path of/two words.png',",
        "  don't break-it or",
        "  lose-it",
    ]
    assert output.wrap_words("", 24) == ""


def test_echo_problem_wraps_on_terminals_only(monkeypatch, capsys):
    text = "word " * 30 + "end"
    output.echo_problem(text)
    assert capsys.readouterr().err == f"{text}\n"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True)
    output.echo_problem(text)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 40
