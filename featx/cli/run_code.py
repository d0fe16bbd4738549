"""``run_code``: Python code that runs an exported model without featx, for each format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featx.inputs.resize import REDUCING_GAP

_MODES = {1: "L", 3: "RGB"}
_RESIZES = {
    "stretch": "image.resize(({width}, {height}), Image.Resampling.LANCZOS)",
    "crop": "ImageOps.fit(image, ({width}, {height}), Image.Resampling.LANCZOS)",
    "pad": "ImageOps.pad(image, ({width}, {height}), Image.Resampling.LANCZOS)",
}
# Per format: the packages to import, how to compute `rows`, and where the class names are.
_RUNTIMES = {
    "keras": (
        "import json, zipfile, keras, numpy as np",
        "rows = keras.saving.load_model({path!r}).predict(inputs, verbose=0)",
        'json.loads(zipfile.ZipFile({path!r}).read("class_names.json"))',
    ),
    "saved_model": (
        "import json, pathlib, numpy as np, tensorflow as tf",
        "model = tf.saved_model.load({path!r})\nrows = model.serve(inputs).numpy()",
        'json.loads(pathlib.Path({path!r}, "assets.extra", "class_names.json").read_text())',
    ),
    "onnx": (
        "import json, numpy as np, onnxruntime",
        'model = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])\n'
        'rows = model.run(None, {{"inputs": inputs}})[0]',
        'json.loads(model.get_modelmeta().custom_metadata_map["class_names"])',
    ),
    "openvino": (
        "import json, numpy as np, openvino",
        "model = openvino.Core().read_model({path!r})\n"
        'compiled = openvino.compile_model(model, "CPU", {{"EXECUTION_MODE_HINT": "ACCURACY"}})\n'
        "rows = compiled(inputs)[0]",
        'json.loads(model.get_rt_info("class_names").value)',
    ),
    "litert": (
        "import json, zipfile, numpy as np, tensorflow as tf",
        "run = tf.lite.Interpreter({path!r}).get_signature_runner()\n"
        "rows = next(iter(run(inputs=inputs).values()))",
        'json.loads(zipfile.ZipFile({path!r}).read("class_names.json"))',
    ),
}


def run_code(path: Path, format: str, inputs: dict[str, Any], *, names_columns: bool) -> str:
    """Return a script that prints what an exported model computes for one image.

    `inputs` is the entry of that name in the file. `names_columns` is True if each column of the
    output belongs to a class.

    Examples
    --------
    >>> inputs = {"dtype": "float32", "shape": [5]}
    >>> print(run_code(Path("m.onnx"), "onnx", inputs, names_columns=False))
    import json, numpy as np, onnxruntime
    inputs = np.load("inputs.npy")  # float32 of shape (n, 5)
    model = onnxruntime.InferenceSession('m.onnx', providers=["CPUExecutionProvider"])
    rows = model.run(None, {"inputs": inputs})[0]
    print(rows[0])
    """
    imports, compute, names = (part.format(path=str(path)) for part in _RUNTIMES[format])
    shown = f"dict(zip({names}, rows[0].tolist()))" if names_columns else "rows[0]"
    return "\n".join([imports, *_reading_lines(inputs), compute, f"print({shown})"])


def _reading_lines(inputs: dict[str, Any]) -> list[str]:
    """Return the lines that make `inputs`: of an image where Pillow reads its channels."""
    mode = _MODES.get(inputs["shape"][-1]) if "resize" in inputs else None
    if mode is None:
        sides = ", ".join("any" if side is None else str(side) for side in inputs["shape"])
        return [f'inputs = np.load("inputs.npy")  # {inputs["dtype"]} of shape (n, {sides})']
    height, width = inputs["size"]
    pixels = _RESIZES[inputs["resize"]].format(width=width, height=height)
    if None in inputs["shape"]:  # the model resizes
        pixels = "image"
    axis = ", ..., np.newaxis" if mode == "L" else ""
    decoded = REDUCING_GAP * max(height, width)
    return [
        "from PIL import Image, ImageOps",
        'image = Image.open("photo.jpg")',
        'assert image.mode[0] not in "IF", "scale the pixels to 0..255 first"',
        f"image.draft(None, ({decoded}, {decoded}))  # large JPEG files are decoded smaller",
        f'image = ImageOps.exif_transpose(image).convert("{mode}")',
        f"inputs = np.asarray({pixels})[np.newaxis{axis}]",
    ]
