"""The code of the README and the guide runs, but for networks that need a download."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/guide.md")
# The embedded network stands in for those whose weights are not on this machine.
INSTEAD = {
    '"mobilenet_v2"': '"tiny"',
    '"resnet50"': '"tiny"',
    '"conv4_block6_out"': '"stage4"',
    '"block_3_expand_relu"': '"stage2"',
    '"block_13_expand_relu"': '"stage3"',
    "1280": "400",
    "(448, 448)": "(128, 128)",
    "(224, 224)": "(64, 64)",
    "--backbone mobilenet_v2": "",
    "epochs=20": "epochs=2",
}


def blocks(language):
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for shown, stand_in in INSTEAD.items():
        text = text.replace(shown, stand_in)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folders and the file that the pages name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("photos", "more-photos"):
        for name, level in (("daisy", 180), ("roses", 60)):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(level, level + 60, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.jpg")
    Image.fromarray(pixels).save(tmp_path / "new.jpg")


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_python_blocks_run_one_after_another(capsys):
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "a page", "exec"), namespace)
    accuracy, probe, *heads, intervals, tuned, columns, passes = (
        capsys.readouterr().out.splitlines()
    )
    assert (accuracy, columns, passes) == ("1.0", "(16, 401)", "(16, 400) 0")
    assert float(probe.split()[0]) > 0
    assert [line.split(":")[0] for line in heads] == ["probe", "knn"]
    assert intervals.startswith("[0.5")
    assert ", 1.0] " in intervals
    assert tuned.split()[2] in ("head", "tuned")
    first = namespace["folder"].data[:1]
    of_paths = namespace["classifier"].predict_proba(first)
    np.testing.assert_allclose(namespace["probabilities"], of_paths, atol=1e-4)
    assert Path("flowers.onnx").is_file()
    assert Path("flowers.featx").is_file()
    assert Path("flowers.h5").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_commands_run_one_after_another():
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("featx ")]
    assert len(commands) >= 9
    for command in commands:
        if command[1:2] == ["fit"]:
            command += ["--backbone", "tiny"]
        main(command[1:])
