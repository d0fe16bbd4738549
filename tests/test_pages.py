"""The code of the README and of docs/ runs, with "tiny" in place of networks to download.

Blocks in "python" and "bash" run; those in "py" and "sh" need what is not on this machine.
"""

import re
import shlex
import shutil
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file
from scipy.io import wavfile

from featx.cli.main import main

ROOT = Path(__file__).parents[1]
GUIDE = [
    f"docs/guide/{page.name}"
    for page in sorted((ROOT / "docs" / "guide").glob("*.md"))
    if page.name != "index.md"
]
PAGES = ["README.md", *GUIDE, "docs/i_have.md", "docs/coming_from.md"]
# The others take longer, and show what has tests of its own.
IN_GATE = {"README.md", "docs/i_have.md"}
IN_GATE |= {f"docs/guide/{name}.md" for name in ("inputs", "backbones", "heads", "cache")}
SHARED = ROOT.parent / "shared"
PHOTOS = SHARED / "data" / "flower_photos" / "train"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
EVALUATE = "$ featx evaluate flowers.featx test-photos\n"
INSTEAD = {
    '"mobilenet_v2"': '"tiny"',
    '"block_3_expand_relu"': '"stage2"',
    '"block_13_expand_relu"': '"stage3"',
    "1280": "400",
    "(448, 448)": "(128, 128)",
    "(224, 224)": "(64, 64)",
    "--backbone mobilenet_v2": "",
    "epochs=20": "epochs=2",
    "s3://bucket": "memory://bucket",
}


def blocks(page):
    """Return the language and the code of each block, for what is on this machine."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for shown, stand_in in INSTEAD.items():
        text = text.replace(shown, stand_in)
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folders and the file that the pages name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("photos", "test-photos"):
        for name, level in (("daisy", 180), ("roses", 60)):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(level, level + 60, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.jpg")
    Image.fromarray(pixels).save(tmp_path / "new.jpg")
    rows = [
        f"photos/{name}/{number}.jpg,{name},P{number}"
        for name in ("daisy", "roses")
        for number in range(8)
    ]
    for table in ("scans.csv", "new.csv"):
        (tmp_path / table).write_text("\n".join(["filename,finding,patient_id", *rows]))


@pytest.fixture
def other_data(photos):
    """The archive, the bucket, the scans and the sounds that docs/i_have.md names."""
    fsspec = pytest.importorskip("fsspec")
    with tarfile.open("photos.tar", "w") as archive:
        archive.add("photos")
    fsspec.filesystem("memory").put("photos", "/bucket/photos", recursive=True)
    write_scans()
    for number in (1, 2):
        wave = np.sin(np.arange(4000) * number / 4) * 10_000
        wavfile.write(f"{number}.wav", 8000, wave.astype(np.int16))


def write_scans():
    """Write the DICOM, NIfTI and TIFF files that docs/i_have.md names."""
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm"), start=1):
        shutil.copy(get_testdata_file(name, download=False), f"{number}.dcm")
    rng = np.random.default_rng(0)
    volume = nibabel.Nifti1Image(rng.normal(size=(20, 24, 16)).astype(np.float32), np.eye(4))
    volume.to_filename("brain.nii.gz")
    bands = rng.integers(0, 10_000, (64, 64, 13), dtype=np.uint16)
    tifffile.imwrite("fields.tif", bands, photometric="minisblack", planarconfig="contig")
    stack = rng.integers(0, 4096, (5, 64, 64), dtype=np.uint16)
    tifffile.imwrite("stack.tif", stack, photometric="minisblack")
    slide = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    with tifffile.TiffWriter("slide.tif") as tiff:
        tiff.write(slide, subifds=1, tile=(256, 256), photometric="rgb")
        tiff.write(slide[::2, ::2], subfiletype=1, tile=(256, 256), photometric="rgb")


def run_commands(lines):
    """Run those lines that call the command, with a network that is on this machine."""
    for line in lines:
        command = shlex.split(line, comments=True)
        trains = command[:1] == ["featx"] and command[1] in ("check", "cv", "fit")
        if trains and "--backbone" not in command:
            command += ["--backbone", "tiny"]
        if command[:1] == ["featx"]:
            main(command[1:])


@pytest.mark.usefixtures("photos", "other_data")
@pytest.mark.filterwarnings("ignore::featx.exceptions.NearDuplicateWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in IN_GATE else pytest.mark.long)
        for page in PAGES
    ],
)
def test_blocks_run_one_after_another(page):
    namespace = {}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, page, "exec"), namespace)
        elif language == "bash":
            run_commands(code.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the shared photographs of flowers")
def test_readme_shows_what_its_code_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(PHOTOS)
    (_, code), (_, shown), *_ = blocks("README.md")
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) == pytest.approx(float(shown), abs=0.02)


@pytest.mark.long
@pytest.mark.skipif(not (PHOTOS.is_dir() and WEIGHTS.is_file()), reason="needs the shared data")
def test_command_page_shows_what_evaluate_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = ["--backbone", "mobilenet_v2", "--param", "alpha=0.35", "--weights", str(WEIGHTS)]
    main(["fit", str(PHOTOS), *network, "--calibrate", "--out", "flowers.featx", "-q"])
    capsys.readouterr()
    main(["evaluate", "flowers.featx", str(PHOTOS.with_name("val"))])
    screens = [code for language, code in blocks("docs/guide/command.md") if language == "console"]
    (shown,) = (screen for screen in screens if screen.startswith(EVALUATE))
    accuracy, printed = 0.808, capsys.readouterr().out
    assert f"accuracy {accuracy}" in shown
    assert float(printed.split()[1]) == pytest.approx(accuracy, abs=0.03)
    assert re.sub(r"\d", "0", printed) == re.sub(r"\d", "0", shown.removeprefix(EVALUATE))
