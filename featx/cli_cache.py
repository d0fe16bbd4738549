"""``featx cache``: look into the cache of embeddings, and keep it in order."""

from __future__ import annotations

import sys
from typing import Any

import click

from featx.cli_output import AS_JSON, print_json, show


@click.group()
@click.option("--cache", "path", default=None, type=click.Path(), help="Default: your own cache.")
@click.pass_context
def cache(context: click.Context, path: str | None) -> None:
    """Look into the cache of embeddings, and keep it in order."""
    from featx.cache import EmbeddingCache

    context.obj = EmbeddingCache(path)


@cache.command()
@AS_JSON
@click.pass_obj
def info(store: Any, as_json: bool) -> None:
    """Say what is stored."""
    result = store.info()
    if as_json:
        print_json(result)
        return
    from featx import reports

    reports.print_cache(result)


@cache.command()
@click.option("--repair", is_flag=True, help="Move damaged shards aside, keeping sound rows.")
@AS_JSON
@click.pass_obj
def verify(store: Any, repair: bool, as_json: bool) -> None:
    """Check every row; exit code 1 if any is damaged."""
    damaged = store.verify(repair=repair)
    lines = [f"{count} damaged rows in {path}" for path, count in damaged.items()]
    show(damaged, as_json, "\n".join(lines) or "every row is sound")
    if damaged:
        sys.exit(1)


@cache.command()
@click.pass_obj
def compact(store: Any) -> None:
    """Merge the shards of each space into few."""
    store.compact()


@cache.command()
@click.option("--max-bytes", required=True, help="What may stay, as in 500MB or 10GB.")
@click.pass_obj
def evict(store: Any, max_bytes: str) -> None:
    """Remove the oldest shards until the rest fits."""
    freed = store.evict(max_bytes=_size_bytes(max_bytes))
    click.echo(f"{freed} bytes freed")


@cache.command()
@click.argument("path", type=click.Path())
@click.pass_obj
def export(store: Any, path: str) -> None:
    """Copy all rows, merged, to another cache folder."""
    store.export(path)


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(store: Any, yes: bool) -> None:
    """Remove everything that is stored."""
    if not yes:
        click.confirm(f"Remove all embeddings in {store.path}?", abort=True)
    store.clear()


def _size_bytes(text: str) -> int:
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1, "": 1}
    number = text.strip().rstrip("bBkKmMgGtT")
    unit = text.strip()[len(number) :].lower()
    try:
        return int(float(number) * units[unit])
    except (KeyError, ValueError):
        raise click.BadParameter(
            f"{text!r}: expected a size as in 500MB or 10GB", param_hint="--max-bytes"
        ) from None
