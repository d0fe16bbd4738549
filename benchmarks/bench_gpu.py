"""Measure the frozen pass on a GPU beside what the GPU can do.

    arrays     images in memory: featx, images identified, against a bare loop over the same
               compiled graph (uint8 to the device, embeddings back, two batches pending), against
               the graph alone on a batch that lies on the device, and against torchvision's network
               where there is one
    sizes      images/s of the bare loop by batch size, and the seconds of the first run, which
               compiles
    agreement  rows against those of the CPU in float32
    files      natural JPEGs through featx: decoding alone, arrays, files

Methods of a table take turns; the tables show medians of images/s. Random weights, which cost the
same as trained ones, are taken where no file is at hand. Runs on Keras' JAX backend:

Usage: KERAS_BACKEND=jax python benchmarks/bench_gpu.py [--smoke] [--repeats 5] [--images 4096]
           [--torch] [--networks ResNet50 ...] [--precisions float32 tf32 ...]
           [--sections arrays ...] [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from photos import distinct_photos

# Backbone, and the function of torchvision that makes the same network.
NETWORKS = {
    "ResNet50": ("resnet50", "resnet50"),
    "EfficientNetV2B0": ("efficientnetv2_b0", None),
    "ConvNeXtTiny": ("convnext_tiny", "convnext_tiny"),
}
PRECISIONS = ("float32", "tf32", "bfloat16")
SIZE = 224
BATCH_SIZE = 256
SIZES = (32, 64, 128, 256, 512)


def take_turns(methods, repeats, n_images):
    """Run each method in turn; return the median images/s of each, and the first run's seconds."""
    rates, firsts = {name: [] for name in methods}, {}
    for repeat in range(repeats + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            seconds = time.perf_counter() - start
            if repeat:  # the first run also compiles
                rates[name].append(n_images / seconds)
            else:
                firsts[name] = seconds
    return {name: median(values) for name, values in rates.items()}, firsts


def extractor_of(backbone, precision, **options):
    """Return an extractor of a network with random weights."""
    from featx import FeatureExtractor

    options = {"weights": None, "input_size": SIZE, "engine": "keras", "cache": None} | options
    return FeatureExtractor(backbone, precision=precision, **options)


def random_images(n_images):
    """Return distinct images."""
    return np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), np.uint8)


def compiled_graph(extractor, precision, device=None):
    """Return the folded graph as JAX compiles it, a function of uint8 batches."""
    import jax

    from featx.backbones.backbone import embedding_graph
    from featx.engines.fold import rewritten_for_inference
    from featx.engines.registry import in_precision

    graph = embedding_graph([extractor.current_source().load_backbone()], "uint8")
    model = rewritten_for_inference(in_precision(graph, precision))
    variables = (model.trainable_variables, model.non_trainable_variables)
    weights = [jax.device_put([one.value for one in kind], device) for kind in variables]
    function = jax.jit(
        lambda own, others, inputs: model.stateless_call(own, others, inputs, training=False)[0]
    )
    matmul = "highest" if precision == "float32" else "tensorfloat32"

    def call(inputs):
        with jax.default_matmul_precision(matmul):
            return function(*weights, inputs)

    return call


def host_loop(function, images, batch_size):
    """Send batches, fetch embeddings; while one is computed, the next is sent."""
    pending = deque()
    for start in range(0, len(images), batch_size):
        pending.append(function(images[start : start + batch_size]))
        if len(pending) == 2:
            np.asarray(pending.popleft())
    while pending:
        np.asarray(pending.popleft())


def device_loop(function, batch, n_batches):
    """Compute one batch that lies on the device, again and again."""
    result = batch
    for _ in range(n_batches):
        result = function(batch)
    result.block_until_ready()


def torch_loop(name, precision, images, batch_size):
    """Return a loop over torchvision's network, its head left out."""
    import torch
    import torchvision

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True
    model = getattr(torchvision.models, name)()
    if hasattr(model, "fc"):
        model.fc = torch.nn.Identity()
    else:
        model.classifier = torch.nn.Flatten()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device, memory_format=torch.channels_last)
    mixed = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    @torch.inference_mode()
    def run():
        rows = []
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).to(device)
            with mixed:
                rows.append(model(batch.permute(0, 3, 1, 2) / 127.5 - 1))
        return torch.cat(rows).float().cpu().numpy()

    return run


def measure_arrays(args, _work):
    """Compare featx with bare loops, precision by precision."""
    import jax

    images = random_images(args.images)
    results = {}
    for precision in args.precisions:
        for network in args.networks:
            backbone, torch_name = NETWORKS[network]
            extractor = extractor_of(backbone, precision, batch_size=args.batch_size)
            extractor.fit(images[:1])
            function = compiled_graph(extractor, precision)
            batch = jax.device_put(images[: args.batch_size])
            n_batches = args.images // args.batch_size
            methods = {
                "on the device": partial(device_loop, function, batch, n_batches),
                "bare loop": partial(host_loop, function, images, args.batch_size),
                "featx": partial(extractor.transform, images),
            }
            if args.torch and torch_name:
                methods["torch"] = torch_loop(torch_name, precision, images, args.batch_size)
            rates, firsts = take_turns(methods, args.repeats, args.images)
            share = rates["featx"] / rates["bare loop"]
            results[f"{network}, {precision}"] = {
                "images/s": rates,
                "first run, s": firsts,
                "featx / bare loop": share,
            }
            short = {name: float(f"{rate:.4g}") for name, rate in rates.items()}
            print(f"# {network}, {precision}: {short} {share:.3f}", file=sys.stderr, flush=True)
    return results


def measure_sizes(args, _work):
    """Compare batch sizes, and show with which one "auto" begins."""
    images = random_images(args.images)
    results = {}
    extractor = extractor_of("resnet50", args.precisions[-1]).fit(images[:1])
    start = time.perf_counter()
    extractor.transform(images)
    seconds = time.perf_counter() - start
    found = extractor.report_.batch_size
    results["auto"] = {"batch_size": found, "first run, s": seconds}
    function = compiled_graph(extractor, args.precisions[-1])
    for size in SIZES[: 2 if args.smoke else None]:
        methods = {"bare loop": partial(host_loop, function, images, size)}
        rates, firsts = take_turns(methods, args.repeats, args.images)
        results[size] = {"images/s": rates["bare loop"], "first run, s": firsts["bare loop"]}
        print(f"# {size}: {results[size]}", file=sys.stderr, flush=True)
    return results


def measure_agreement(args, _work):
    """Return the largest difference of a row from the CPU's in float32, relative to its length."""
    import jax

    images = random_images(8)
    results = {}
    for network in args.networks:
        backbone, _ = NETWORKS[network]
        extractor = extractor_of(backbone, "float32", batch_size=8).fit(images)
        on_cpu = compiled_graph(extractor, "float32", jax.devices("cpu")[0])
        expected = np.asarray(on_cpu(images), np.float64)
        for precision in args.precisions:
            rows = np.asarray(compiled_graph(extractor, precision)(images), np.float64)
            gaps = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
            results[f"{network}, {precision}"] = float(gaps.max())
    return results


def measure_files(args, work):
    """Compare a pass over JPEGs with its decoding alone and with its network alone."""
    from featx.extraction.prefetch import KnownRows, load
    from featx.inputs.kinds import InputForm
    from featx.inputs.recognize import as_samples

    paths = distinct_photos(args.shared, work, args.images)
    samples = as_samples(paths)

    def decode():
        rows = KnownRows(np.arange(len(samples)))
        form = InputForm((SIZE, SIZE, 3))
        for _ in load(samples, rows, form, batch_size=lambda: 64, n_jobs=None):
            pass

    extractor = extractor_of("resnet50", args.precisions[-1], batch_size=args.batch_size)
    methods = {
        "decode": decode,
        "arrays": partial(extractor.fit_transform, random_images(args.images)),
        "files": partial(extractor.fit_transform, paths),
    }
    rates, _ = take_turns(methods, args.repeats, args.images)
    smaller = min(rates["decode"], rates["arrays"])
    return {"images/s": rates, "of the smaller": rates["files"] / smaller}


SECTIONS = {
    "arrays": measure_arrays,
    "sizes": measure_sizes,
    "agreement": measure_agreement,
    "files": measure_files,
}


def machine():
    """Name what this is measured on."""
    import jax

    return (
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, JAX {jax.__version__}"
    )


def main():
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few images, one precision")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--torch", action="store_true", help="torchvision's networks as well")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.repeats, args.images, args.batch_size, args.precisions = 1, 8, 4, ["float32"]
    results = {"machine": machine()}
    with tempfile.TemporaryDirectory() as work:
        for section in args.sections:
            results[section] = SECTIONS[section](args, Path(work))
            if args.out:  # a lent machine may be taken back at any time
                args.out.write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
