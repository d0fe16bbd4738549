"""What the commands print: text for people, or one JSON document for machines."""

from __future__ import annotations

import json
from typing import Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def show(result: Any, as_json: bool, text: str) -> None:
    """Print the result for machines, or else its text for people."""
    if as_json:
        print_json(result)
    else:
        click.echo(text)


def print_json(value: Any) -> None:
    """Print plain data as one JSON document."""
    click.echo(json.dumps(value, indent=1))
