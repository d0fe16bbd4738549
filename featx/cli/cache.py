"""``featx cache``: inspect, check, shrink, export, import and clear the cache of embeddings."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich import filesize

from featx._text import one_line
from featx.cli.options import GivenPath, Group, extractor_options, make_extractor, or_none
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_output_files,
    confirm,
    echo,
    print_cache,
    print_json,
    show_result,
)
from featx.exceptions import InputError

if TYPE_CHECKING:
    from featx.cache.cache import EmbeddingCache

T = TypeVar("T", int, float)


def _open_cache(
    context: click.Context, option: click.Parameter, path: str | None
) -> EmbeddingCache:
    from featx.cache.cache import EmbeddingCache

    if path is not None and path.lower() == "none":
        raise click.BadParameter("none: there is no cache to work on")
    return EmbeddingCache(None if path == "auto" else path)


def _open_existing_cache(
    context: click.Context, option: click.Parameter, path: str | None
) -> EmbeddingCache:
    cache = _open_cache(context, option, path)
    _check_cache_exists(cache, path)
    return cache


def _check_cache_exists(cache: EmbeddingCache, path: str | None) -> None:
    """Check that a named cache exists, so that a mistyped path is not taken for an empty cache.

    The default cache may be missing if nothing has been stored yet.
    """
    named = f"--cache {path}" if path not in (None, "auto") else ""
    if not named and os.environ.get("FEATX_CACHE"):
        named = f"FEATX_CACHE={os.environ['FEATX_CACHE']}"
    if not named:
        return
    from featx.cache.folder import CACHE_PARTS

    if not cache.path.is_dir():
        raise InputError(f"{named}: there is no such cache; {cache.path} is not a folder")
    names = {path.name for path in cache.path.iterdir() if not path.name.startswith(".")}
    names -= {"lost+found"}
    if names and names.isdisjoint(CACHE_PARTS):
        raise InputError(f"{named}: there is no cache in this folder, but other files")


_CACHE = click.option(
    "--cache",
    "store",
    type=GivenPath(),
    default=None,
    callback=_open_existing_cache,
    help="A folder; default: your own cache.",
)
_CACHE_OR_NEW = click.option(
    "--cache",
    "store",
    type=GivenPath(),
    default=None,
    callback=_open_cache,
    help="A folder, created if it is missing; default: your own cache.",
)


@click.group(cls=Group)
def cache() -> None:
    """Inspect, check, shrink and copy the cache of embeddings."""


@cache.command()
@_CACHE
@AS_JSON
def info(store: EmbeddingCache, as_json: bool) -> None:
    """Show what is stored."""
    result = store.info()
    if as_json:
        print_json(result)
        return
    print_cache(result)


@cache.command()
@click.option("--repair", is_flag=True, help="Quarantine damaged shards, keeping sound rows.")
@click.option(
    "--sample",
    default=0,
    type=click.IntRange(min=0),
    help="Rows to compute again and compare; needs --folder.",
)
@click.option("--folder", type=GivenPath(), help="Images whose rows to compute again.")
@click.option(
    "--backbone", default="mobilenet_v2", show_default=True, help="Network that computes them."
)
@extractor_options
@AS_JSON
def verify(
    repair: bool, sample: int, folder: str | None, backbone: str, as_json: bool, **options: Any
) -> None:
    """Check every row; exit code 1 if any is damaged."""
    from featx.cache.cache import resolve_cache
    from featx.cli.files import list_folder

    store = resolve_cache(or_none(options["cache"]))
    if store is None:
        raise click.UsageError("--cache none: there is nothing to check")
    _check_cache_exists(store, options["cache"])
    if sample and folder is None:
        raise click.UsageError("--sample needs --folder: the images whose rows to compute again")
    if folder is not None and not sample:
        raise click.UsageError("--folder needs --sample: how many of its rows to compute again")
    recheck: dict[str, Any] = {}
    if folder is not None:
        extractor = make_extractor(backbone, options)
        recheck = {"sample": sample, "extractor": extractor, "X": list_folder(folder).data}
    result = store.verify(repair, **recheck)
    lines = [f"{one_line(path)}: {one_line(why)}" for path, why in result["damaged"].items()]
    lines += [f"{one_line(name)}: the network gives another row" for name in result["differing"]]
    shown = lines or [f"all {result['n_rows']} rows are sound"]
    if result["n_sampled"]:
        shown.append(
            f"{result['n_sampled']} rows computed again: largest relative difference "
            f"{result['largest_difference']:.1e}"
        )
    show_result(result, as_json, "\n".join(shown))
    if lines:
        raise click.exceptions.Exit(1)


@cache.command()
@_CACHE
@AS_JSON
def compact(store: EmbeddingCache, as_json: bool) -> None:
    """Merge the small shards of each space into few."""
    before = store.info()["n_shards"]
    store.compact()
    after = store.info()["n_shards"]
    result = {"n_shards_before": before, "n_shards": after}
    show_result(result, as_json, f"{before} shards became {after}")


@cache.command()
@_CACHE
@click.option("--max-bytes", default=None, help="Largest size to keep, as in 500MB or 10GB.")
@click.option("--older-than", default=None, help="Remove spaces not used for this long: 30d, 12h.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def evict(
    store: EmbeddingCache, max_bytes: str | None, older_than: str | None, yes: bool, as_json: bool
) -> None:
    """Remove rows, from the least recently used spaces first, until the rest fits."""
    if max_bytes is None and older_than is None:
        raise click.UsageError("pass --max-bytes, --older-than or both")
    limits: dict[str, Any] = {
        "max_bytes": None if max_bytes is None else _size_bytes(max_bytes),
        "older_than": None if older_than is None else _length_of_time(older_than),
    }
    evictable = store.evictable(**limits)
    for space in evictable:
        echo(
            f"{space.digest[:8]}: {filesize.decimal(space.size_bytes)}, {space.n_rows} rows of "
            f"{space.label}, last used {space.last_used}",
            err=True,
        )
    total = filesize.decimal(sum(space.size_bytes for space in evictable))
    agreed = evictable and (yes or confirm(f"Remove these {total}?"))
    removed = store.evict(**limits) if agreed else []
    total = filesize.decimal(sum(space.size_bytes for space in removed))
    show_result([space._asdict() for space in removed], as_json, f"{total} freed")


@cache.command()
@_CACHE
@click.argument("path", type=GivenPath())
@click.option(
    "--space",
    default=None,
    help="First digits of the digest of a space, as in `featx cache info`, if there are several.",
)
@click.option("--folder", default=None, type=GivenPath(), help="Only these images, with labels.")
@click.option("--format", default=None, help="h5, npz, parquet or csv; default: by the suffix.")
@FORCE
@AS_JSON
def export(
    store: EmbeddingCache,
    path: str,
    space: str | None,
    folder: str | None,
    format: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the rows of a space to one file: .h5, .npz, .parquet or .csv."""
    check_output_files(Path(path), force=force)
    from featx.cache.exchange import check_rows_export
    from featx.cli.files import list_folder

    check_rows_export(Path(path), format)
    images: dict[str, Any] = {}
    if folder is not None:
        loaded = list_folder(folder)
        images = {"X": loaded.data, "y": loaded.target}
    store.export(path, format=format, space=space, **images)
    size_bytes = Path(path).stat().st_size
    result = {"path": path, "size_bytes": size_bytes}
    show_result(result, as_json, f"{filesize.decimal(size_bytes)} in {one_line(path)}")


@cache.command(name="import")
@_CACHE_OR_NEW
@click.argument("path", type=GivenPath())
@AS_JSON
def import_(store: EmbeddingCache, path: str, as_json: bool) -> None:
    """Add the rows of an exported .h5 file, or of another cache folder."""
    report = store.import_(path)
    show_result(
        report._asdict(),
        as_json,
        f"{report.n_added} of {report.n_rows} rows added, {report.n_damaged} damaged ones left out",
    )


@cache.command()
@_CACHE
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def clear(store: EmbeddingCache, yes: bool, as_json: bool) -> None:
    """Remove everything that featx stored; other files stay."""
    before = store.info()
    size = filesize.decimal(before["size_bytes"])
    echo(f"{size}, {before['n_rows']} rows of {len(before['spaces'])} spaces", err=True)
    is_wanted = yes or confirm(f"Remove all embeddings in {one_line(store.path)}?")
    freed_bytes = store.clear() if is_wanted else 0
    show_result({"freed_bytes": freed_bytes}, as_json, f"{filesize.decimal(freed_bytes)} freed")


def _length_of_time(text: str) -> timedelta:
    """Parse a length of time such as 30d."""
    units = {"s": "seconds", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text.strip()[:-1], text.strip()[-1:].lower()
    try:
        return timedelta(**{units[unit]: _not_negative(float(number))})
    except (KeyError, ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r}: expected a length of time as in 30d, 12h or 2w", param_hint="--older-than"
        ) from None


def _size_bytes(text: str) -> int:
    """Parse a size such as 500MB."""
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1, "": 1}
    number = text.strip().rstrip("bBkKmMgGtT")
    unit = text.strip()[len(number) :].lower()
    try:
        return _not_negative(int(float(number) * units[unit]))
    except (KeyError, ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r}: expected a size as in 500MB or 10GB", param_hint="--max-bytes"
        ) from None


def _not_negative(number: T) -> T:
    if number < 0:
        raise ValueError
    return number
