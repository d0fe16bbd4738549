"""Measure the page of a report: seconds and memory to make it, its size, and until it is drawn.

Images are variations of CIFAR-10 (--shared), or, without the shared data, of scikit-learn's digits,
each with other colors and noise. They are embedded with "tiny" beforehand; the report is made by a
process of its own, which finds all rows in the cache. Memory is what that process has at most, the
interpreter and its libraries included. If Chromium and playwright are installed, the page is opened
from disk, and the seconds until the map is drawn are measured.

Usage: python benchmarks/bench_report.py [--smoke] [--images 10000 100000] [--head ridge]
           [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from bench_streaming import memory_bytes
from children import answer_of
from PIL import Image
from sklearn.datasets import load_digits

from featx import FeatureExtractor, TransferClassifier, load_image_folder, report

SIDE = 64  # pixels


def originals(shared):
    """Return images, uint8 arrays, and their classes."""
    folder = shared / "data" / "cifar10_jpg" / "train"
    if folder.is_dir():
        found = load_image_folder(folder)
        images = [np.asarray(Image.open(path).convert("RGB")) for path in found.data]
        return images, found.target
    digits = load_digits()
    return [
        np.repeat(each[..., np.newaxis] * 15, 3, axis=2) for each in digits.images
    ], digits.target


def write_images(folder, shared, n_images):
    """Write variations of the images as JPEG files, in a folder for each class."""
    images, classes = originals(shared)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    for number in range(n_images):
        original = order[number % len(images)]
        image = images[original].astype(np.float64)
        image = image + rng.integers(-25, 26, 3) + rng.normal(0, 6, image.shape)
        place = folder / str(classes[original])
        place.mkdir(parents=True, exist_ok=True)
        varied = Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE))
        varied.save(place / f"{number:06d}.jpg", quality=85)


def make_page(work, head):
    """Make the report of the images in a folder; print what it took as JSON."""
    images = load_image_folder(work / "images")
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=work / "cache"), head)
    start_s = time.perf_counter()
    found = report(classifier, images.data, images.target)
    made_s = time.perf_counter()
    found.to_html(work / "report.html")
    written_s = time.perf_counter()
    result = {
        "report, s": made_s - start_s,
        "page, s": written_s - made_s,
        "page, MB": (work / "report.html").stat().st_size / 1e6,
        "peak memory, GB": memory_bytes("VmHWM") / 1e9,
        "forward passes": found.to_dict()["cost"]["n_forward"],
    }
    print(json.dumps(result))


def seconds_until_drawn(page):
    """Return the seconds from opening the page to a drawn map; None without a browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page()
        start_s = time.perf_counter()
        shown.goto(page.as_uri())
        shown.locator("#map canvas").first.wait_for(state="attached")
        took_s = time.perf_counter() - start_s
        browser.close()
    return took_s


def main():
    """Measure each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="60 images, once")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--head", default="ridge")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help=argparse.SUPPRESS)  # of a child process
    args = parser.parse_args()
    if args.page:
        make_page(args.page, args.head)
        return
    results = {}
    for n_images in [60] if args.smoke else args.images:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            write_images(work / "images", args.shared, n_images)
            paths = load_image_folder(work / "images").data
            FeatureExtractor("tiny", cache=work / "cache").fit_transform(paths)
            answer = answer_of(__file__, "--page", work, "--head", args.head, is_smoke=args.smoke)
            with ThreadPoolExecutor(1) as threads:  # this one may have the browser of a test
                drawn = threads.submit(seconds_until_drawn, work / "report.html")
            answer["drawn, s"] = drawn.result()
            results[f"{n_images} images"] = answer
            print(f"# {n_images} images: {answer}", file=sys.stderr)
    text = json.dumps({"machine": f"{os.cpu_count()} cores", "report": results}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
