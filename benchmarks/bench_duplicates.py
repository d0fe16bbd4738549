"""Measure how many copies of images `near_duplicates` finds, and how many it takes for copies.

A hundred images of each set are copied: compressed again (JPEG, quality 60), made smaller (0.7
times), trimmed by 4 % on each side, mirrored. Embeddings alone find a copy if its cosine to its
original reaches the threshold that the set itself sets; with the images, pixels count as well.
Pairs among the originals are false alarms, or true copies that the set holds: the closest is named,
to be looked at.

Without the shared data (--shared) only "tiny" on scikit-learn's digits is measured.

Usage: python benchmarks/bench_duplicates.py [--smoke] [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from bench_accuracy import extractors
from bench_views import image_sets
from PIL import Image

from featx import EmbeddingCache, near_duplicates


def encoded(image, **options):
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def copies(path):
    """Return copies of an image, by what was done to it."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    smaller = image.resize((int(width * 0.7), int(height * 0.7)))
    box = (int(width * 0.04), int(height * 0.04), width - int(width * 0.04))
    return {
        "compressed": encoded(image, format="JPEG", quality=60),
        "smaller": encoded(smaller, format="PNG"),
        "trimmed": encoded(image.crop((*box, height - int(height * 0.04))), format="PNG"),
        "mirrored": encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), format="PNG"),
    }


def found_fraction(found, n_images, n_copied):
    """Return the fraction of the copies that are paired with their originals."""
    pairs = set(map(tuple, found.pairs.tolist()))
    return float(np.mean([(row, n_images + row) in pairs for row in range(n_copied)]))


def measure(extractor, paths, *, n_copied):
    """Return what is found from the embeddings, and with the images."""
    paths = list(map(str, paths))
    made = [copies(path) for path in paths[:n_copied]]
    originals = extractor.fit_transform(paths)
    alone = near_duplicates(originals)
    by_pixels = near_duplicates(originals, images=paths)
    rows = {"embeddings": {"threshold": alone.threshold}, "images": {}}
    for row, found in zip(rows.values(), (alone, by_pixels), strict=True):
        row["n_pairs"] = len(found.pairs)
        row["closest"] = [paths[number] for number in found.pairs[0]] if row["n_pairs"] else []
    for kind in made[0]:
        files = [files[kind] for files in made]
        both = np.concatenate([originals, extractor.transform(files)])
        found = near_duplicates(both, threshold=alone.threshold)
        rows["embeddings"][kind] = found_fraction(found, len(paths), n_copied)
        found = near_duplicates(both, images=[*paths, *files])
        rows["images"][kind] = found_fraction(found, len(paths), n_copied)
    return rows


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_duplicates.json"))
    args = parser.parse_args()
    n_images, n_copied = (60, 10) if args.smoke else (600, 100)
    print("| set | network | from | pairs | compressed | smaller | trimmed | mirrored |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "cache")
        for name, data, _ in image_sets(args.shared, Path(folder)):
            paths = np.random.default_rng(0).permutation(np.asarray(data))[:n_images]
            for network, extractor in extractors(args.shared, cache, "float32").items():
                for source, row in measure(extractor, paths, n_copied=n_copied).items():
                    about = {"set": name, "network": network, "from": source}
                    rows.append({**about, "n_images": len(paths), **row})
                    found = " | ".join(f"{row[kind]:.2f}" for kind in list(row)[-4:])
                    shown = f"| {name} | {network} | {source} | {row['n_pairs']} | {found} |"
                    print(shown, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1))
    print(f"\nwritten to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
