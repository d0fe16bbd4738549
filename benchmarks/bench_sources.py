"""Measure a cold pass over the same photos in a folder, in archives and on a slow web server.

A pass of "tiny" over distinct JPEGs with an empty cache, in one process, whose network is compiled
before; the methods take turns, and the table shows medians. The server is a process of its own that
waits before each answer.

    folder     local files
    zip, tar   files of one archive
    server     files of the server; featx asks for the state of each file, downloads it, and asks
               again
    loop       a plain download of one file after another, without a network: what a user would
               write before `fit_transform(contents)`

Usage: python benchmarks/bench_sources.py [--smoke] [--repeats 3] [--photos 600] [--delay 0.05]
                                          [--shared FOLDER] [--work FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from photos import distinct_photos

from featx import EmbeddingCache, FeatureExtractor

WAYS = ("folder", "zip", "tar", "server", "loop")


class SlowHandler(SimpleHTTPRequestHandler):
    """A handler that waits before it answers."""

    delay_s = 0.0

    def send_head(self):
        """Wait, and send the head of the answer."""
        time.sleep(self.delay_s)
        return super().send_head()

    def log_message(self, *args):
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server that lets many connections wait."""

    request_queue_size = 128


def serve(delay_s):
    """Serve the working directory until the process is ended; print the port first."""
    SlowHandler.delay_s = delay_s
    with Server(("127.0.0.1", 0), SlowHandler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextlib.contextmanager
def started_server(folder, delay_s):
    """Start a server of a folder in another process; yield its URL."""
    command = [sys.executable, Path(__file__).resolve(), "--serve", str(delay_s)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def pack(paths, work):
    """Write a zip and a tar archive of the photos."""
    with zipfile.ZipFile(work / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, Path(path).name)
    with tarfile.open(work / "photos.tar", "w") as archive:
        for path in paths:
            archive.add(path, Path(path).name)


def samples_of(way, paths, work, url):
    """Return the photos as a way names them."""
    names = [Path(path).name for path in paths]
    if way in ("zip", "tar"):
        return [f"{way}://{name}::{work / f'photos.{way}'}" for name in names]
    return list(paths) if way == "folder" else [f"{url}/{name}" for name in names]


def seconds_of(way, samples):
    """Return the time of one pass with an empty cache, or of plain downloads."""
    start_s = time.perf_counter()
    if way == "loop":
        for url in samples:
            with urllib.request.urlopen(url) as answer:
                answer.read()
        return time.perf_counter() - start_s
    with tempfile.TemporaryDirectory() as folder:
        extractor = FeatureExtractor("tiny", cache=EmbeddingCache(folder), engine="keras")
        start_s = time.perf_counter()
        extractor.fit_transform(samples)
        seconds = time.perf_counter() - start_s
    if extractor.report_["n_forward"] != len(samples):
        raise SystemExit(f"{way}: {extractor.report_['n_forward']} passes")
    return seconds


def measure(args, work):
    """Return the seconds of each way, in turn."""
    paths = distinct_photos(args.shared, work, args.photos)
    pack(paths, work)
    seconds = {way: [] for way in WAYS}
    with started_server(Path(paths[0]).parent, args.delay) as url:
        samples = {way: samples_of(way, paths, work, url) for way in WAYS}
        seconds_of("folder", samples["folder"][:64])  # compiles the network
        for _ in range(args.repeats):
            for way in WAYS:
                seconds[way].append(seconds_of(way, samples[way]))
                print(f"# {way} {seconds[way][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--delay", type=float, default=0.05, help="of the server, in seconds")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, help="where temporary files go (300 MB)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_sources.json"))
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.serve)
        return
    if args.smoke:
        args.photos, args.repeats = 20, 1
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        seconds = measure(args, Path(work))
    found = {way: median(times) for way, times in seconds.items()}
    print("| photos | seconds | photos/s | time / folder |\n|---|---|---|---|")
    for way, taken_s in found.items():
        rate, ratio = args.photos / taken_s, taken_s / found["folder"]
        print(f"| {way} | {taken_s:.2f} | {rate:.0f} | {ratio:.2f} |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"seconds": seconds, "photos": args.photos}, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
