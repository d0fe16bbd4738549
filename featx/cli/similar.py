"""``featx similar``: the images that are most similar to given ones."""

from __future__ import annotations

from typing import Any

import click

from featx._urls import shown_path
from featx.cli.options import Command, GivenPath, extractor_options, make_extractor
from featx.cli.output import AS_JSON, print_json, print_similar
from featx.exceptions import InputError

_K = 10


@click.command(cls=Command)
@click.argument("queries", nargs=-1, required=True, type=GivenPath(), metavar="QUERY...")
@click.argument("photos", type=GivenPath())
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@click.option(
    "--k",
    default=None,
    type=click.IntRange(min=1),
    help="Images to find for each query; default: 10, or all if there are fewer.",
)
@extractor_options
@AS_JSON
def similar(
    queries: tuple[str, ...],
    photos: str,
    backbone: str,
    k: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the images below the folder PHOTOS that are most similar to each QUERY.

    A QUERY is an image or a folder of images. Each folder may be an archive (.zip, .tar) or a URL,
    as in s3://bucket/photos. Similarity is the cosine of embeddings, at most 1. A query that lies
    below PHOTOS is found first. With --on-error nan, images below PHOTOS that cannot be read are
    left out.
    """
    from featx.evaluation.neighbors import find_similar
    from featx.inputs.folders import is_folder, list_images

    if not is_folder(photos):
        raise InputError(
            f"{shown_path(photos)!r} is no folder: the last argument is a folder of images, or an "
            "archive"
        )
    extractor = make_extractor(backbone, options)
    asked, images = list_images(queries), list_images([photos])
    found = find_similar(asked, images, extractor=extractor, k=k or min(_K, len(images)))
    pairs = zip(asked, found.indices.tolist(), found.similarity.tolist(), strict=True)
    result = [
        {
            "query": shown_path(query),
            "similar": [
                {"image": shown_path(images[row]), "similarity": similarity}
                for row, similarity in zip(rows, similarities, strict=True)
            ],
        }
        for query, rows, similarities in pairs
    ]
    if as_json:
        print_json(result)
    else:
        print_similar(result)
