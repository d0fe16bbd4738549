"""The proof: real ImageNet weights on real images, accuracy and forward passes.

Needs the shared data and weights beside the project; figures are in benchmarks/README.md.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, load_image_folder

SHARED = Path(__file__).parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
ROUNDING = 0.002  # a handful of the 3,000 predictions lie so near the border that machines differ
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared (real images and weights)"),
]


def mobilenet(**params):
    return FeatureExtractor(
        "mobilenet_v2", weights=WEIGHTS, backbone_params={"alpha": 0.35}, **params
    )


def images_of(*folders):
    sets = [load_image_folder(SHARED / "data" / folder) for folder in folders]
    return np.concatenate([s.data for s in sets]), np.concatenate([s.target for s in sets])


@pytest.mark.parametrize(
    ("folders", "accuracy"),
    [
        (("flower_photos/train", "flower_photos/val"), 0.83),
        pytest.param(("dogs_cats",), 0.95, marks=pytest.mark.long),
        pytest.param(("sign_digits",), 0.84, marks=pytest.mark.long),
    ],
    ids=["flower_photos", "dogs_cats", "sign_digits"],
)
def test_linear_probe_reaches_the_reference_in_one_pass(folders, accuracy):
    """One split of 300 images is uncertain by two points, so ten are averaged."""
    paths, labels = images_of(*folders)
    classifier = TransferClassifier(mobilenet(), LogisticRegression(max_iter=2000))
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=10, random_state=0)
    scores = cross_val_score(classifier, paths, labels, cv=folds)
    assert scores.mean() >= accuracy - ROUNDING
    n_distinct = len({Path(path).read_bytes() for path in paths})
    assert EmbeddingCache().info()["n_forward"] == n_distinct


@pytest.mark.parametrize("engine", ["keras", "auto"])
@pytest.mark.long
def test_bfloat16_rows_are_near_those_of_float32(engine):
    """Small trained networks round much; the benchmarks tell what it costs in accuracy."""
    paths, _ = images_of("flower_photos/val")
    rows = mobilenet(cache=None).fit_transform(paths[::4])
    rough = mobilenet(cache=None, precision="bfloat16", engine=engine).fit_transform(paths[::4])
    gaps = np.linalg.norm(rough - rows, axis=1) / np.linalg.norm(rows, axis=1)
    assert np.sort(gaps)[-2] < 0.2, "more than one image is far off"
    assert np.median(gaps) < 0.1  # 0.066 on a CPU with bfloat16, 0.079 by TensorFlow without oneDNN
    nearest = pairwise_distances(rough, rows).argmin(axis=1)
    np.testing.assert_array_equal(nearest, np.arange(len(rows)), "an image is nearest to another")


def test_forward_passes_follow_what_is_missing(tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(SHARED / "data" / "flower_photos" / "val" / "daisy", folder / "daisy")
    paths = load_image_folder(folder).data
    extractor = mobilenet(input_size=96)

    def n_forward(X, extractor=extractor):
        extractor.fit_transform(X)
        return extractor.report_.n_forward

    assert n_forward(paths[:-2]) == len(paths) - 2
    assert n_forward(paths[:-2]) == 0, "second run"
    assert n_forward(np.random.default_rng(0).permutation(paths[:-2])) == 0, "shuffled"
    assert n_forward(paths[:5]) == 0, "subset"
    assert n_forward(paths) == 2, "superset"
    os.rename(paths[0], folder / "daisy" / "another-name.jpg")
    assert n_forward(load_image_folder(folder).data) == 0, "renamed"
    pixels = np.array(Image.open(paths[1]))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(paths[1])
    assert n_forward(load_image_folder(folder).data) == 1, "changed pixel"
    random = FeatureExtractor(
        "mobilenet_v2", weights=None, backbone_params={"alpha": 0.35}, input_size=96
    )
    assert n_forward(load_image_folder(folder).data, random) == len(paths), "changed weights"
