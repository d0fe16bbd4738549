"""Measure the frozen pass beside what the machine can do and beside what people use.

    arrays   images in memory: featx on each engine against bare loops over the same compiled graph
             and against model.predict; and the speed of a large matrix product
    folder   natural JPEGs: featx against its decoding alone and its pass alone
    taps     five layers of one network with a head each: one pass against one for each
    peers    what a user would do instead, from image files to pooled features

Methods of a table take turns; the tables show medians of images/s. Random weights, which cost the
same as trained ones, are taken where no file is at hand.

Usage: python benchmarks/bench_extract.py [--smoke] [--repeats 3] [--sections arrays taps ...]
                                          [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import decoded, distinct_photos, find_weights

# Backbone, its parameters, pixels, batch size, images, times model.predict to be reached.
NETWORKS = {
    "MobileNetV2 0.35, 96": ("mobilenet_v2", {"alpha": 0.35}, 96, 32, 2048, 2.0),
    "MobileNetV2, 224": ("mobilenet_v2", {}, 224, 32, 320, 2.0),
    "ResNet50, 224": ("resnet50", {}, 224, 16, 128, 1.5),
    "EfficientNetB0, 224": ("efficientnet_b0", {}, 224, 16, 192, 1.5),
}
SMOKE_NETWORKS = {"MobileNet 0.25, 64": ("mobilenet", {"alpha": 0.25}, 64, 8, 16, 2.0)}
RESNET50_GFLOP = 7.73  # of one image of 224 x 224 pixels
# Backbone, its parameters, images, (layer, pooling) of each head. Those of ResNet50 are the five of
# Vista (Nakandala and Kumar, SIGMOD 2020): the four topmost blocks, and the pooled features.
TAPS = {
    "MobileNetV2 0.35, from bottom to top": (
        "mobilenet_v2",
        {"alpha": 0.35},
        500,
        [
            *((f"block_{number}_expand_relu", "avg") for number in (3, 6, 10, 13)),
            ("out_relu", "avg"),
        ],
    ),
    "ResNet50, top": (
        "resnet50",
        {},
        192,
        [
            *((f"conv{block}_out", "max") for block in ("4_block6", "5_block1", "5_block2")),
            ("conv5_block3_out", "max"),
            ("conv5_block3_out", "avg"),
        ],
    ),
}
# Backbone, its parameters, images.
FROM_FILES = {
    "MobileNetV2 0.35": ("mobilenet_v2", {"alpha": 0.35}, 2000),
    "MobileNetV2": ("mobilenet_v2", {}, 1000),
    "ResNet50": ("resnet50", {}, 192),
}
SMOKE_FROM_FILES = {"MobileNetV2 0.35": ("mobilenet_v2", {"alpha": 0.35}, 64)}
ARTICLE = "image_dataset_from_directory + predict"


def take_turns(methods, repeats, n_images):
    """Run each method in turn; return the median images/s of each."""
    rates = {name: [] for name in methods}
    for repeat in range(repeats + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            rate = n_images / (time.perf_counter() - start)
            if repeat:  # the first run also compiles
                rates[name].append(rate)
                print(f"# {name}: {rate:.1f} images/s", file=sys.stderr, flush=True)
    return {name: median(values) for name, values in rates.items()}


def batches_of(images, size):
    """Yield batches, the last one padded."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
        yield np.concatenate([batch, padding]) if len(padding) else batch


def gflops():
    """Return how many billions of float32 operations a second a large matrix product does."""
    import keras

    side = 4096
    matrix = keras.random.normal((side, side))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        np.asarray(keras.ops.matmul(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / median(seconds[1:]) / 1e9


def bare_openvino_loop(graph, images, batch_size, folder):
    """Return a loop over OpenVINO's own asynchronous queue, at its hint for throughput."""
    import openvino

    file = folder / "bare.xml"
    graph.export(str(file), format="openvino", verbose=False)
    model = openvino.Core().read_model(str(file))
    model.reshape([batch_size, *images.shape[1:]])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))

    def loop():
        for batch in batches_of(images, batch_size):
            queue.start_async({0: batch})
        queue.wait_all()

    return loop


def bare_keras_loop(graph, images, batch_size):
    """Return a loop over the compiled graph, as TensorFlow runs it."""
    import tensorflow as tf

    function = tf.function(lambda x: graph(x, training=False), autograph=False)
    compiled = function.get_concrete_function(tf.TensorSpec(graph.inputs[0].shape, tf.uint8))

    def loop():
        for batch in batches_of(images, batch_size):
            compiled(tf.constant(batch)).numpy()

    return loop


def measure_arrays(args, work):
    """Compare engines with bare loops, from arrays in memory."""
    from featx import FeatureExtractor
    from featx.backbones.backbone import embedding_graph
    from featx.engines.fold import rewritten_for_inference

    rows = []
    networks = SMOKE_NETWORKS if args.smoke else NETWORKS
    for name, (backbone, params, size, batch_size, n_images, goal) in networks.items():
        print(f"# {name}", file=sys.stderr, flush=True)
        images = np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), np.uint8)
        options = {"weights": None, "backbone_params": params, "input_size": size}
        extractor = FeatureExtractor(backbone, batch_size=batch_size, cache=None, **options)
        plain = embedding_graph([extractor.fit(images).current_source().load_backbone()], "uint8")
        folded = rewritten_for_inference(plain)

        def featx(engine, precision="float32", extractor=extractor, images=images):
            extractor.set_params(engine=engine, precision=precision).fit(images[:1])
            extractor.transform(images)

        def predict(plain=plain, images=images, batch_size=batch_size):
            plain.predict(images, batch_size=batch_size, verbose=0)

        methods = {
            "model.predict": predict,
            "bare loop": bare_keras_loop(folded, images, batch_size),
            "featx, keras": lambda featx=featx: featx("keras"),
            "bare OpenVINO": bare_openvino_loop(plain, images, batch_size, work),
            "featx, openvino": lambda featx=featx: featx("openvino"),
            "featx, onnx": lambda featx=featx: featx("onnx"),
            "featx, openvino, bfloat16": lambda featx=featx: featx("openvino", "bfloat16"),
        }
        rates = take_turns(methods, args.repeats, n_images)
        row = {"network": name, "goal over predict": goal, "images/s": rates}
        if backbone == "resnet50":
            row["matrix product, GFLOP/s"] = gflops()
            row["of it"] = rates["featx, openvino"] * RESNET50_GFLOP / gflops()
        rows.append(row)
    return rows


def is_small(backbone, params):
    """Return True for MobileNetV2 0.35, whose trained weights may be at hand."""
    return backbone == "mobilenet_v2" and params == {"alpha": 0.35}


def extractor_of(args, backbone="mobilenet_v2", params=None, **options):
    """Return an extractor at 224 pixels, with trained weights if these are at hand."""
    from featx import FeatureExtractor

    params = {"alpha": 0.35} if params is None else params
    weights = find_weights(args.shared) if is_small(backbone, params) else None
    options |= {"weights": weights, "backbone_params": params, "input_size": 224}
    return FeatureExtractor(backbone, **options)


def measure_folder(args, work):
    """Compare a pass over files with its decoding alone and with its network alone."""
    from featx.extraction.prefetch import KnownRows, load
    from featx.inputs.kinds import InputForm
    from featx.inputs.recognize import as_samples

    results = {}
    networks = SMOKE_FROM_FILES if args.smoke else FROM_FILES
    for name, (backbone, params, n_images) in networks.items():
        print(f"# {name}", file=sys.stderr, flush=True)
        paths = distinct_photos(args.shared, work, n_images)
        samples = as_samples(paths)

        def decode(samples=samples):
            rows = KnownRows(np.arange(len(samples)))
            form = InputForm((224, 224, 3))
            groups = load(samples, rows, form, batch_size=lambda: 64, n_jobs=None)
            return [inputs for _, inputs, _ in groups]

        images = np.concatenate(decode())
        # Copies of a photograph are one array: a few pixels make each its own, as in the files.
        images[:, 0, :8, 0] = np.arange(len(images)).astype(">u8").view(np.uint8).reshape(-1, 8)
        methods = {"decode": decode}
        for engine in ("keras", "openvino"):
            extractor = extractor_of(args, backbone, params, engine=engine, cache=None)
            for kind, inputs in (("arrays", images), ("files", paths)):
                methods[f"{kind}, {engine}"] = partial(extractor.fit_transform, inputs)
        if is_small(backbone, params):
            methods[ARTICLE] = article(args, paths)
        rates = take_turns(methods, args.repeats, len(paths))
        results[name] = {"images": len(paths), "images/s": rates}
        for engine in ("keras", "openvino"):
            decoding, arrays = rates["decode"], rates[f"arrays, {engine}"]
            files = rates[f"files, {engine}"]
            # Both keep all cores busy: what is left to each adds up.
            results[name][f"{engine}, of the smaller"] = files / min(decoding, arrays)
            results[name][f"{engine}, of both on shared cores"] = files * (
                1 / decoding + 1 / arrays
            )
            if ARTICLE in rates:
                results[name][f"{engine}, times {ARTICLE}"] = files / rates[ARTICLE]
    return results


def article(args, paths):
    """Return what Keras' guides do: photos from a folder, resized by tf.data, into predict."""
    import keras

    model = small_network(args)
    preprocess = keras.applications.mobilenet_v2.preprocess_input
    folder = str(Path(paths[0]).parent)

    def run():
        dataset = keras.utils.image_dataset_from_directory(
            folder, labels=None, image_size=(224, 224), batch_size=32, shuffle=False, verbose=0
        )
        model.predict(dataset.map(preprocess), verbose=0)

    return run


def small_network(args):
    """Build MobileNetV2 0.35 as a user of Keras would, with trained weights if at hand."""
    import keras

    options = {"alpha": 0.35, "include_top": False, "pooling": "avg", "input_shape": (224, 224, 3)}
    return keras.applications.MobileNetV2(weights=find_weights(args.shared), **options)


def measure_taps(args, work):
    """Compare one pass that stores five layers with a pass for each, a head on each."""
    from sklearn.linear_model import LogisticRegression

    from featx import TransferClassifier

    results = {}
    workloads = list(TAPS.items())[: 1 if args.smoke else None]
    for name, (backbone, params, n_images, taps) in workloads:
        print(f"# {name}", file=sys.stderr, flush=True)
        if args.smoke:
            n_images, taps = 16, taps[:2]
        paths = distinct_photos(args.shared, work, n_images)
        labels = np.arange(len(paths)) % 5

        def run(also_cache, backbone=backbone, params=params, taps=taps, paths=paths, y=labels):
            with tempfile.TemporaryDirectory(dir=work) as cache:
                for layer, pooling in taps:
                    options = {"layer": layer, "pooling": pooling, "also_cache": also_cache}
                    extractor = extractor_of(args, backbone, params, cache=cache, **options)
                    head = LogisticRegression(max_iter=20, tol=1e-2)
                    TransferClassifier(extractor, head=head).fit(paths, y)

        methods = {"a pass for each": partial(run, ()), "one pass": partial(run, taps)}
        rates = take_turns(methods, args.repeats, len(paths))
        times = rates["one pass"] / rates["a pass for each"]
        results[name] = {"images": len(paths), "images/s": rates, "times": times}
    return results


def measure_peers(args, work):
    """Compare with the article's way, embetter and torch, from files."""
    import keras
    from PIL import Image

    paths = distinct_photos(args.shared, work, 32 if args.smoke else 500)
    model = small_network(args)
    preprocess = keras.applications.mobilenet_v2.preprocess_input

    def each_file():
        for start in range(0, len(paths), 32):
            batch = [
                np.asarray(Image.open(path).convert("RGB").resize((224, 224)), np.float32)
                for path in paths[start : start + 32]
            ]
            model.predict(preprocess(np.stack(batch)), verbose=0)

    def featx(engine):
        with tempfile.TemporaryDirectory(dir=work) as cache:
            extractor_of(args, engine=engine, cache=cache).fit_transform(paths)

    methods = {
        ARTICLE: article(args, paths),
        "Pillow + predict": each_file,
        "featx, keras": lambda: featx("keras"),
        "featx, openvino": lambda: featx("openvino"),
    }
    if importlib.util.find_spec("embetter"):
        methods["embetter cached(), cold"] = embetter_cold(model, preprocess, paths, work)
    if importlib.util.find_spec("torchvision"):
        methods["decoded in threads + torch"] = torch_extractor(paths)
    return {"images/s": take_turns(methods, args.repeats, len(paths))}


def torch_extractor(paths):
    """Return the same network in torch, fed by a thread for each core."""
    import torch
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(width_mult=0.35).features.eval()

    @torch.inference_mode()
    def run():
        for start in range(0, len(paths), 32):
            pixels = torch.from_numpy(decoded(paths[start : start + 32]))
            model(pixels.permute(0, 3, 1, 2) / 127.5 - 1).mean((2, 3)).numpy()

    return run


def embetter_cold(model, preprocess, paths, work):
    """Return embetter's cache, empty at first, around a Keras transformer."""
    from embetter.base import EmbetterBase
    from embetter.utils import cached
    from PIL import Image

    class Embedder(EmbetterBase):
        def transform(self, X, y=None):
            images = [
                np.asarray(Image.open(path).convert("RGB").resize((224, 224)), np.float32)
                for path in X
            ]
            return model.predict(preprocess(np.stack(images)), verbose=0)

    def run():
        with tempfile.TemporaryDirectory(dir=work) as folder:
            cached(Path(folder) / "cache", Embedder()).transform(paths)

    return run


SECTIONS = {
    "arrays": measure_arrays,
    "folder": measure_folder,
    "taps": measure_taps,
    "peers": measure_peers,
}


def main():
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute instead of many")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.repeats = 1 if args.smoke else args.repeats
    if "peers" in args.sections and importlib.util.find_spec("torchvision"):
        import torchvision  # noqa: F401  # after TensorFlow it would end the process
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"machine": machine}
    with tempfile.TemporaryDirectory() as work:
        for section in args.sections:
            results[section] = SECTIONS[section](args, Path(work))
    print(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
