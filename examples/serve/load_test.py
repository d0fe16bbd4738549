"""Send an image to the service from several connections; print requests/s, p50 and p99.

Usage: python examples/serve/load_test.py IMAGE [--port 8000] [--connections 8] [--seconds 10]
"""

import argparse
import http.client
import threading
import time
from pathlib import Path
from statistics import quantiles


def send_requests(args, image, times, errors):
    """Send an image again and again over one connection, and note the time of each response."""
    connection = http.client.HTTPConnection("127.0.0.1", args.port, timeout=60)
    end = time.perf_counter() + args.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("POST", "/predict", image)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            errors.append(f"{response.status}: {content.decode()}")
            break
        times.append(time.perf_counter() - start)
    connection.close()


def main():
    """Run the load test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    times, errors, image = [], [], args.image.read_bytes()
    threads = [
        threading.Thread(target=send_requests, args=(args, image, times, errors))
        for _ in range(args.connections)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise SystemExit(errors[0])
    if len(times) < 2:
        raise SystemExit("fewer than two responses: is the service running?")
    percentiles = quantiles(times, n=100)
    p50, p99 = 1e3 * percentiles[49], 1e3 * percentiles[98]
    print(f"{len(times) / seconds:.1f} requests/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms")


if __name__ == "__main__":
    main()
