"""Measure what `find_image_issues` and the search for outliers find, and their false alarms.

Sixty images of each set are made dark (0.25 of each level), bright, faint (0.12 of the range),
blurred (a Gaussian of 1 % of the longer side, but of 1.5 pixels or more, and noise of two levels),
tiny (a sixth of each side) and stretched (four times as long). Each issue is counted among all
originals, false alarms or true ones, and among its changed images with the originals. Outliers are
two images of each other set.

Without the shared data (--shared) only scikit-learn's digits are measured, without outliers.

Usage: python benchmarks/bench_image_checks.py [--smoke] [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from bench_accuracy import extractors
from bench_views import image_sets
from PIL import Image, ImageFilter

from featx import EmbeddingCache, find_image_issues
from featx.evaluation.outliers import find_outliers


def blurred(image):
    """Return a blurred image with the noise of a sensor."""
    image = image.filter(ImageFilter.GaussianBlur(max(1.5, 0.01 * max(image.size))))
    noise = np.random.default_rng(0).normal(0, 2, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


CHANGES = {
    "dark": lambda image: image.point(lambda level: level * 0.25),
    "bright": lambda image: image.point(lambda level: 212 + level * 0.17),
    "low contrast": lambda image: image.point(lambda level: 112 + level * 0.12),
    "blurred": blurred,
    "tiny": lambda image: image.resize([max(1, side // 6) for side in image.size]),
    "odd shape": lambda image: image.resize((4 * image.width, image.height)),
}


def measure_issues(paths, *, n_changed):
    """Return for each issue how many originals have it, and the fraction of changed images."""
    alone = find_image_issues(paths).issues
    result = {}
    for issue, change in CHANGES.items():
        changed = [change(Image.open(path).convert("RGB")) for path in paths[:n_changed]]
        rows = find_image_issues([*paths, *changed]).issues[issue]
        result[issue] = [len(alone[issue]), float((rows >= len(paths)).sum() / n_changed)]
    return result


def measure_outliers(extractor, sets, name):
    """Return how many originals are outliers, and the fraction of two images of each other set."""
    paths = sets[name]
    foreign = [path for other in sets if other != name for path in sets[other][:2]]
    rows = extractor.fit_transform(paths)
    _, alone = find_outliers(rows)
    _, found = find_outliers(np.concatenate([rows, extractor.transform(foreign)]))
    return [len(alone), float((found >= len(paths)).sum() / len(foreign))]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_image_checks.json"))
    args = parser.parse_args()
    n_images, n_changed = (60, 10) if args.smoke else (600, 60)
    print("Each cell: number among the originals; fraction found of the changed images.\n")
    print(f"| set | images | {' | '.join(CHANGES)} |")
    print(f"|---|---|{'---|' * len(CHANGES)}")
    sets, result = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data, _ in image_sets(args.shared, Path(folder)):
            some = np.random.default_rng(0).permutation(np.asarray(data))[:n_images]
            sets[name] = list(map(str, some))
            result[name] = measure_issues(sets[name], n_changed=n_changed)
            cells = " | ".join(f"{n}; {found:.2f}" for n, found in result[name].values())
            print(f"| {name} | {len(some)} | {cells} |", flush=True)
        if len(sets) > 1:
            networks = extractors(args.shared, EmbeddingCache(Path(folder) / "cache"), "float32")
            print(f"\n| set | {' | '.join(f'outliers, {network}' for network in networks)} |")
            print(f"|---|{'---|' * len(networks)}")
            for name in sets:
                found = {
                    network: measure_outliers(extractor, sets, name)
                    for network, extractor in networks.items()
                }
                result[name]["outliers"] = found
                cells = " | ".join(f"{n}; {fraction:.2f}" for n, fraction in found.values())
                print(f"| {name} | {cells} |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(f"\nwritten to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
