"""Help is short, grouped, and has examples that work."""

import shlex

import click
import pytest

from featx.cli.help import COMMAND_GROUPS, EXAMPLES, OPTION_GROUPS
from featx.cli.main import cli


def commands_below(group, prefix=""):
    """Yield the names and commands below a group, such as "cache info"."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands_below(command, f"{name} ")


COMMANDS = dict(commands_below(cli))


def test_every_command_has_an_example():
    assert set(EXAMPLES) == set(COMMANDS)


def test_every_command_has_a_job():
    listed = [name for names in COMMAND_GROUPS.values() for name in names]
    assert sorted(listed) == sorted(cli.commands)


def test_grouped_options_exist():
    known = {param.name for command in COMMANDS.values() for param in command.params}
    assert {name for names in OPTION_GROUPS.values() for name in names} <= known | {"help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_shows_examples(name, run):
    code, text, err = run(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    for example in EXAMPLES[name]:
        assert f"  {example}\n" in text


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_example_is_valid_usage(example):
    words = shlex.split(example)[1:]
    group = words[0] == "cache"
    command = COMMANDS[" ".join(words[: 1 + group])]
    _, extra, _ = command.make_parser(click.Context(command)).parse_args(words[1 + group :])
    assert extra == []


def test_help_lists_options_in_groups(run):
    text = run("fit", "--help")[1]
    titles = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["Options:", *(f"{title}:" for title in OPTION_GROUPS), "Examples:"]


def test_help_lists_commands_by_job(run):
    text = run("--help")[1]
    places = [text.index(f"{title}:\n") for title in COMMAND_GROUPS]
    assert places == sorted(places)
    assert "..." not in text.partition("\n")[2]
