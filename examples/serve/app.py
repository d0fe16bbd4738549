"""A web service around a saved classifier: ``POST /predict`` an image, ``GET /healthz``.

It is plain ASGI: two routes need no framework. Nothing is cached, so nothing is written to disk.

Usage: FEATX_MODEL=flowers.featx uvicorn --app-dir examples/serve app:app --workers 2
"""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from featx import load
from featx.exceptions import BadSampleError, FeatxError

MAX_BYTES = 20_000_000
Image.MAX_IMAGE_PIXELS = 25_000_000  # the header of a larger image is enough to reject it
AT_ONCE = ThreadPoolExecutor(2)  # images in memory; each pixel takes several bytes


def load_classifier():
    """Load the classifier that FEATX_MODEL names, and predict once; exit with what is wrong."""
    path = os.environ.get("FEATX_MODEL")
    if not path:
        raise SystemExit("FEATX_MODEL is not set: expected the path of a saved classifier")
    try:
        classifier = load(path, cache=None)
    except FeatxError as exc:
        raise SystemExit(f"FEATX_MODEL: {exc}") from None
    if not hasattr(classifier, "predict_proba"):
        raise SystemExit(
            f"FEATX_MODEL: {path!r} holds a model without probabilities, which this service "
            "returns: expected a classifier with a head such as 'logistic', or one that was "
            "calibrated (featx fit --calibrate)"
        )
    classifier.extractor_.set_params(on_error="raise", verbose=False)
    classifier.predict_proba(np.zeros((1, 64, 64, 3), np.uint8))
    return classifier


# Each worker does this before it accepts connections.
CLASSIFIER = load_classifier()


async def app(scope, receive, send):
    """Answer one request, or do nothing when the server starts and stops."""
    if scope["type"] != "http":
        return
    status, content = await respond(scope["method"], scope["path"], receive)
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond(method, path, receive):
    """Return the status and the content of the response to a request."""
    if path == "/healthz" and method in ("GET", "HEAD"):
        return 200, {"status": "ready"}
    if (method, path) != ("POST", "/predict"):
        return 404, {"error": "expected POST /predict or GET /healthz"}
    body, message = bytearray(), {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            return 413, {"error": f"the image has more than {MAX_BYTES} bytes"}
    return await asyncio.get_running_loop().run_in_executor(AT_ONCE, classify, bytes(body))


def reason_for_client(reason):
    """Return why an image cannot be read, without advice for who runs the service."""
    if reason.startswith("decompression bomb"):
        return f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels"
    return reason


def classify(image):
    """Return the status, and the probabilities of an encoded image or the reason for none."""
    try:
        probabilities = CLASSIFIER.predict_proba([image])[0].tolist()
    except BadSampleError as exc:
        return 422, {"error": reason_for_client(exc.faults[0].reason)}
    by_class = dict(zip(map(str, CLASSIFIER.classes_), probabilities, strict=True))
    return 200, {"label": max(by_class, key=by_class.get), "probabilities": by_class}
