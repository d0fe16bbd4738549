"""A web service around a saved classifier: ``POST /predict`` an image, ``GET /healthz``.

It is plain ASGI: two routes need no framework. Nothing is cached, so nothing is written to disk.

Usage: FEATX_MODEL=flowers.featx uvicorn --app-dir examples/serve app:app --workers 2
"""

import asyncio
import json
import os

import numpy as np
from PIL import Image

from featx import load
from featx.exceptions import BadSampleError

MAX_BYTES = 20_000_000
Image.MAX_IMAGE_PIXELS = 50_000_000  # the header of a larger image is enough to reject it

# Each worker loads the model, and predicts once, before it accepts connections.
CLASSIFIER = load(os.environ["FEATX_MODEL"], cache=None)
CLASSIFIER.extractor_.set_params(on_error="raise")
CLASSIFIER.predict_proba(np.zeros((1, 64, 64, 3), np.uint8))


async def app(scope, receive, send):
    """Answer one request, or do nothing when the server starts and stops."""
    if scope["type"] != "http":
        return
    status, content = await respond(scope["method"], scope["path"], receive)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def respond(method, path, receive):
    """Return the status and the content of the response to a request."""
    if (method, path) == ("GET", "/healthz"):
        return 200, {"status": "ready"}
    if (method, path) != ("POST", "/predict"):
        return 404, {"error": "expected POST /predict or GET /healthz"}
    body, message = bytearray(), {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            return 413, {"error": f"the image has more than {MAX_BYTES} bytes"}
    return await asyncio.to_thread(classify, bytes(body))


def classify(image):
    """Return the status, and the probabilities of an encoded image or the reason for none."""
    try:
        probabilities = CLASSIFIER.predict_proba([image])[0].tolist()
    except BadSampleError as exc:
        return 422, {"error": exc.faults[0].reason}
    by_class = dict(zip(map(str, CLASSIFIER.classes_), probabilities, strict=True))
    return 200, {"label": max(by_class, key=by_class.get), "probabilities": by_class}
