"""``load_webdataset``: samples, targets and groups in tar files, and faults of the files."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from featx import FeatureExtractor, load_webdataset
from featx.exceptions import InputError, ParameterError


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return str(path)


def png(number):
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(encoded, "png")
    return encoded.getvalue()


def files_of(number, label):
    record = json.dumps(
        {"patient": f"p{number % 3}", "label": label, "age": number, "sex": number % 2}
    ).encode()
    stem = f"{number:04d}"
    return [(f"{stem}.png", png(number)), (f"{stem}.cls", label.encode()), (f"{stem}.json", record)]


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        files = [file for number in numbers for file in files_of(number, str(number % 2))]
        write_tar(tmp_path / f"shard-{shard:03d}.tar", files)
    return tmp_path


@pytest.mark.parametrize("name", ["shard-{000..002}.tar", "shard-*.tar"])
def test_load_webdataset_expands_ranges_and_patterns(shards, name):
    found = load_webdataset(shards / name)
    assert found.target.tolist() == [0, 1] * 6
    assert found.target_names == [0, 1]
    assert found.data[5] == f"tar://0005.png::{shards / 'shard-001.tar'}"
    assert found.groups is None


def test_load_webdataset_reads_fields_of_json(shards):
    found = load_webdataset(
        [shards / "shard-000.tar", shards / "shard-002.tar"],
        target=["json:age", "json:sex"],
        groups="json:patient",
    )
    assert found.target[:2].tolist() == [[0, 0], [1, 1]]
    assert found.target_names == ["json:age", "json:sex"]
    assert found.groups.tolist() == [f"p{number % 3}" for number in (*range(4), *range(8, 12))]


def test_load_webdataset_rows_equal_those_of_bytes(shards, tmp_path):
    found = load_webdataset(shards / "shard-{000..002}.tar", target=None)
    assert found.target is None
    extractor = FeatureExtractor("tiny", cache=tmp_path / "cache")
    rows = extractor.fit_transform([png(number) for number in range(12)])
    np.testing.assert_array_equal(extractor.transform(found.data), rows)
    assert extractor.report_["n_forward"] == 0


def test_load_webdataset_text_labels_stay_text(tmp_path):
    shard = write_tar(tmp_path / "a.tar.gz", [*files_of(1, "cat"), *files_of(2, "007")], "w:gz")
    assert load_webdataset(shard).target.tolist() == ["cat", "007"]


def test_load_webdataset_endings_of_images_may_differ(tmp_path):
    files = [("a/1.png", png(1)), ("a/1.cls", b"0"), ("b/1.JPEG", png(2)), ("b/1.cls", b"1")]
    found = load_webdataset(write_tar(tmp_path / "a.tar", files))
    assert [url.partition("::")[0] for url in found.data] == ["tar://a/1.png", "tar://b/1.JPEG"]


def test_load_webdataset_takes_links(tmp_path):
    shard = write_tar(tmp_path / "a.tar", files_of(1, "0"))
    with tarfile.open(shard, "a") as archive:
        for ending in ("png", "cls"):
            link = tarfile.TarInfo(f"2.{ending}")
            link.type, link.linkname = tarfile.LNKTYPE, f"0001.{ending}"
            archive.addfile(link)
    assert load_webdataset(shard).target.tolist() == [0, 0]


def test_load_webdataset_sample_names_one_image(tmp_path):
    files = [
        ("1.left.png", png(1)),
        ("1.right.png", png(2)),
        ("1.cls", b"0"),
        ("2.left.png", png(3)),
    ]
    shard = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(
        InputError, match=r"several images .*left.png, right.png.*sample='left.png'"
    ):
        load_webdataset(shard)
    with pytest.raises(InputError, match="no value in 1 of 2 rows: 1"):
        load_webdataset(shard, sample="left.png")
    found = load_webdataset(shard, sample="left.png", target=None)
    assert found.data[1].startswith("tar://2.left.png::")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("1.png", b""), ("1.png", b"")], "holds '1.png' twice"),
        ([("1.txt", b"")], "has no images; its files end in: txt"),
        ([("1.png", b""), ("1.cls", b"\xff")], "1.cls.* cannot be read: 'utf-8'"),
        (
            [("1.png", b""), ("1.cls", bytes(2**20 + 1))],
            "has 1,048,577 bytes: expected .* at most 1,048,576",
        ),
    ],
)
def test_load_webdataset_faulty_files_raise(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        load_webdataset(write_tar(tmp_path / "a.tar", files))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "cannot be read"), (b"[1]", r"holds \[1\]: expected a JSON object")],
)
def test_load_webdataset_faulty_json_raises(tmp_path, content, message):
    shard = write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", content)])
    with pytest.raises(InputError, match=message):
        load_webdataset(shard, target="json:label")


def test_load_webdataset_faulty_paths_raise(shards, tmp_path):
    (tmp_path / "text.tar").write_bytes(b"no archive" * 100)
    cut = write_tar(tmp_path / "cut.tar", files_of(1, "a"))
    with open(cut, "r+b") as file:
        file.truncate(700)
    for path, message in (
        (tmp_path / "none.tar", "none.tar.*: no such file"),
        (tmp_path / "none-*.tar", "no such file"),
        ([], "shards is empty: expected paths"),
        (tmp_path / "text.tar", "cannot be read"),
        (cut, "cannot be read|no value"),
    ):
        with pytest.raises(InputError, match=message):
            load_webdataset(path)


def test_load_webdataset_faulty_parameters_are_named(shards):
    with pytest.raises(ParameterError, match=r"load_webdataset[\s\S]*shards=3"):
        load_webdataset(3)
    with pytest.raises(ParameterError, match=r"target='clss'.*Did you mean 'cls'"):
        load_webdataset(shards / "shard-000.tar", target="clss")
    with pytest.raises(ParameterError, match="sample=3"):
        load_webdataset(shards / "shard-000.tar", sample=3)


def test_load_webdataset_unknown_field_lists_fields(shards):
    with pytest.raises(ParameterError, match=r"json:labl.*Did you mean 'json:label'.*json:patient"):
        load_webdataset(shards / "shard-000.tar", target="json:labl")
