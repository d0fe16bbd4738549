"""Measure how good linear probes on cached embeddings are.

Five-fold accuracy, averaged over ten shufflings, of a plain logistic regression and of the head
"logistic" (the same, scaled) on the embeddings of real networks with real ImageNet weights, and of
the embedded "tiny". One split of 300 images is uncertain by about two points; the spread that is
shown is over the shufflings. Each image goes through each network once, all probes share the pass.

Without the shared data (--shared) only "tiny" on scikit-learn's digits is measured. With a cache
that is kept (--cache) the passes may be another machine's, with a GPU: rows it holds are not made.

Usage: python benchmarks/bench_accuracy.py [--smoke] [--precision bfloat16] [--shared ../shared]
                                           [--cache DIR] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

# On a few hundred rows two BLAS threads mostly wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, load_image_folder
from featx.cli.demo import write_digits

SETS = {
    "flower_photos": ("flower_photos/train", "flower_photos/val"),
    "dogs_cats": ("dogs_cats",),
    "sign_digits": ("sign_digits",),
    "medmnist_64": ("medmnist_64",),
}
HEADS = {
    "plain": LogisticRegression(max_iter=2000),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
}
GOALS = {"flower_photos": 0.83, "dogs_cats": 0.95, "sign_digits": 0.84}
N_FOLDS = 5


def extractors(shared, cache, precision):
    """Return the networks to be measured, by name."""
    options = {"cache": cache, "precision": precision}
    found = {"tiny": FeatureExtractor("tiny", **options)}
    files = {
        ("mobilenet", 0.25): "mobilenet_2_5_224_tf_no_top.h5",
        (
            "mobilenet_v2",
            0.35,
        ): "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
    }
    for (name, alpha), file in files.items():
        weights = shared / "weights" / file
        if weights.is_file():
            params = {"alpha": alpha}
            found[f"{name} {alpha}"] = FeatureExtractor(
                name, weights=weights, backbone_params=params, **options
            )
    return found


def image_sets(shared, work):
    """Yield the sets that are at hand: name, paths, labels."""
    if not shared.is_dir():
        write_digits(work / "digits")
        digits = load_image_folder(work / "digits")
        yield "digits", digits.data, digits.target
        return
    for name, folders in SETS.items():
        parts = [load_image_folder(shared / "data" / folder) for folder in folders]
        yield (
            name,
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.target for part in parts]),
        )


def measure(shared, *, n_repeats, precision, cache_dir):
    """Print the table; return its rows."""
    print("| set | images | passes | network | plain | scaled | goal, mobilenet_v2 plain |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(cache_dir or Path(folder) / "cache")
        for name, paths, labels in image_sets(shared, Path(folder)):
            for network, extractor in extractors(shared, cache, precision).items():
                embeddings = extractor.fit_transform(paths).astype(np.float64)
                folds = RepeatedStratifiedKFold(
                    n_splits=N_FOLDS, n_repeats=n_repeats, random_state=0
                )
                row = {"set": name, "network": network, "n_images": len(paths)}
                row["n_forward"] = extractor.report_.n_forward
                cells = []
                for head, estimator in HEADS.items():
                    scores = cross_val_score(estimator, embeddings, labels, cv=folds)
                    by_repeat = scores.reshape(n_repeats, N_FOLDS).mean(axis=1)
                    row[head] = float(by_repeat.mean())
                    cells.append(f"{by_repeat.mean():.3f} ± {by_repeat.std():.3f}")
                goal = GOALS.get(name, "") if network.startswith("mobilenet_v2") else ""
                print(
                    f"| {name} | {len(paths)} | {row['n_forward']} | {network} | "
                    f"{' | '.join(cells)} | {goal} |",
                    flush=True,
                )
                rows.append(row)
    return rows


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one shuffling instead of ten")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_accuracy.json"))
    args = parser.parse_args()
    n_repeats = 1 if args.smoke else 10
    rows = measure(args.shared, n_repeats=n_repeats, precision=args.precision, cache_dir=args.cache)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
