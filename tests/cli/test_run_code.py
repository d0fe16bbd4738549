"""The printed code runs what the command exported."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx import load
from featx.cli.run_code import run_code
from featx.engines.registry import missing_packages
from featx.inputs.images import decode_to

IMAGE = {"dtype": "uint8", "shape": [64, 48, 3], "size": [64, 48], "resize": "stretch"}


def printed_by(code):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "code", "exec"), {})
    return shown.getvalue()


@pytest.fixture
def beside_photo(tmp_path, monkeypatch):
    """A working directory with an image that is not of the backbone's size."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(1).integers(90, 160, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")


@pytest.mark.usefixtures("beside_photo")
@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        ("onnx", ".onnx"),
        *(
            pytest.param(format, suffix, marks=pytest.mark.long)
            for format, suffix in {
                "keras": ".keras",
                "saved_model": "",
                "openvino": ".xml",
                "litert": ".tflite",
            }.items()
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("options", [(), ("--include-resize",)], ids=["", "any size"])
def test_printed_code_predicts_as_the_model(run, model, format, suffix, options):
    if missing_packages(format):
        pytest.skip(f"needs featx[{format}]")
    code, text, err = run("export", model, f"it's {format}{suffix}", *options)
    assert code == 0, err
    shown = printed_by(text.split("\n\n", 1)[1])
    by_class = dict(
        zip(["dark", "light"], load(model).predict_proba(["photo.jpg"])[0], strict=True)
    )
    assert json.loads(shown.replace("'", '"')) == pytest.approx(by_class, abs=0.01)


@pytest.mark.usefixtures("beside_photo")
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("n_channels", "shape"), [(3, (1, 64, 48, 3)), (1, (1, 64, 48, 1))])
def test_code_resizes_to_the_input(resize, n_channels, shape):
    inputs = {**IMAGE, "resize": resize, "shape": [64, 48, n_channels]}
    code = run_code(Path("m.onnx"), "onnx", inputs, names_columns=True)
    found = {}
    exec(code[: code.index("model =")], found)
    assert found["inputs"].shape == shape
    assert found["inputs"].dtype == np.uint8


def test_code_decodes_large_jpeg_as_featx(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.jpg")
    code = run_code(Path("m.onnx"), "onnx", IMAGE, names_columns=True)
    found = {}
    exec(code[: code.index("model =")], found)
    expected = decode_to(Path("photo.jpg").read_bytes(), (64, 48, 3))
    assert np.abs(found["inputs"][0] - expected.astype(float)).mean() < 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_code_refuses_pixels_beyond_255(dtype, tmp_path, monkeypatch):
    """Pillow would cut them off, silently."""
    monkeypatch.chdir(tmp_path)
    pixels = np.full((64, 48), 30_000, dtype)
    Image.fromarray(pixels).save("photo.jpg", "TIFF")
    code = run_code(Path("m.onnx"), "onnx", IMAGE, names_columns=False)
    reading = code[code.index("from PIL") : code.index("model =")]
    with pytest.raises(AssertionError, match=r"scale the pixels to 0\.\.255 first"):
        exec(reading, {"np": np})


def test_code_for_other_channels_reads_arrays():
    inputs = {**IMAGE, "shape": [64, 48, 13]}
    code = run_code(Path("m.keras"), "keras", inputs, names_columns=False)
    assert 'np.load("inputs.npy")  # uint8 of shape (n, 64, 48, 13)' in code
