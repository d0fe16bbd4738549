"""Measure how many copies of images `near_duplicates` finds, and how many it takes for copies.

Sixty images of each set are copied: compressed again (JPEG, quality 60), made smaller (0.7 times),
trimmed by 4 % on each side, mirrored. Found is a copy whose cosine to its original reaches the
threshold that the set itself sets. Pairs among the originals are false alarms, or true copies that
the set holds: the closest is named, to be looked at.

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


def measure(extractor, paths, *, n_copied):
    """Return threshold, pairs among the originals, and the share of copies that is found."""
    made = [copies(path) for path in paths[:n_copied]]
    originals = extractor.fit_transform(list(paths))
    alone = near_duplicates(originals)
    row = {"threshold": alone.threshold, "n_pairs": len(alone.pairs)}
    if len(alone.pairs):
        row["closest"] = [str(paths[number]) for number in alone.pairs[0]]
    for kind in made[0]:
        copied = extractor.transform([files[kind] for files in made])
        both = np.concatenate([originals, copied])
        found = near_duplicates(both, threshold=alone.threshold).pairs.tolist()
        expected = [[number, len(paths) + number] for number in range(n_copied)]
        row[kind] = float(np.mean([pair in found for pair in expected]))
    return row


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_duplicates.json"))
    args = parser.parse_args()
    n_images, n_copied = (60, 10) if args.smoke else (600, 60)
    print("| set | network | threshold | pairs | compressed | smaller | trimmed | mirrored |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "cache")
        for name, data, _ in image_sets(args.shared, Path(folder)):
            paths = np.random.default_rng(0).permutation(np.asarray(data))[:n_images]
            for network, extractor in extractors(args.shared, cache, "float32").items():
                row = measure(extractor, paths, n_copied=n_copied)
                rows.append({"set": name, "network": network, "n_images": len(paths), **row})
                found = " | ".join(f"{row[kind]:.2f}" for kind in list(row)[-4:])
                print(
                    f"| {name} | {network} | {row['threshold']:.3f} | {row['n_pairs']} | {found} |",
                    flush=True,
                )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1))
    print(f"\nwritten to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
