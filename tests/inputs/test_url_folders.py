"""Folders and tables in archives and buckets: the same samples as on disk, and one cache."""

import pathlib
import tarfile
import traceback
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from file_server import FileServer
from PIL import Image
from pyarrow import parquet

from featx import (
    FeatureExtractor,
    TransferClassifier,
    load_image_folder,
    load_table,
    load_webdataset,
)
from featx.exceptions import FolderWarning, InputError, ParameterError
from featx.inputs.folders import list_images
from featx.inputs.recognize import as_samples

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "photos"
    noise = np.random.default_rng(0).integers(0, 128, (12, 16, 16, 3), dtype=np.uint8)
    for number, image in enumerate(noise):
        label = CLASSES[number % 2]
        place = folder / label / f"owner{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image + np.uint8(100 * (label == "dog"))).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def sources(folder):
    """The images of the folder, packed, as tables and in memory."""
    root, photos = folder.parent, load_image_folder(folder)
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for path in photos.data:
            archive.write(path, pathlib.Path(path).relative_to(root))
        archive.writestr("__MACOSX/photos/cat/._0.png", b"")
    for ending in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        mode = f"w:{ending[4:]}"
        with tarfile.open(root / f"photos.{ending}", mode) as archive:
            for label in CLASSES:
                archive.add(folder / label, label)
    rows = [
        f"{pathlib.Path(path).relative_to(folder)},{label}"
        for path, label in zip(photos.data, photos.target, strict=True)
    ]
    (folder / "photos.csv").write_text("\n".join(["path,label", *rows]))
    contents = [pathlib.Path(path).read_bytes() for path in photos.data]
    table = pa.table({"image": contents, "label": photos.target.tolist()})
    parquet.write_table(table, root / "photos.parquet", row_group_size=5)
    return root


@pytest.fixture
def bucket(folder, s3_server):
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir("animals")
    for path in folder.rglob("*.*"):
        files.pipe(f"animals/photos/{path.relative_to(folder)}", path.read_bytes())
    parquet_file = folder.parent / "photos.parquet"
    if parquet_file.exists():
        files.pipe("animals/photos.parquet", parquet_file.read_bytes())
        files.pipe("animals/photos.zip", (folder.parent / "photos.zip").read_bytes())
    yield "s3://animals"
    files.rm("animals", recursive=True)


def loaded_from_all(sources, folder, bucket):
    yield load_image_folder(sources / "photos.zip")
    yield load_image_folder(f"zip://photos::{sources / 'photos.zip'}")
    for ending in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        yield load_image_folder(sources / f"photos.{ending}")
    yield load_image_folder(f"file://{folder}")
    yield load_table(folder / "photos.csv")
    yield load_table(f"file://{folder}/photos.csv")
    yield load_table(folder / "photos.csv", base=f"zip://photos::{sources / 'photos.zip'}")
    yield load_table(folder / "photos.csv", base=sources / "photos.tar")
    yield load_table(sources / "photos.parquet", sample="image")
    yield load_image_folder(f"{bucket}/photos")
    yield load_table(f"{bucket}/photos/photos.csv")
    yield load_table(f"{bucket}/photos.parquet", sample="image")
    yield load_image_folder(f"{bucket}/photos.zip")


@pytest.mark.filterwarnings("ignore::featx.exceptions.FolderWarning")
def test_classifier_of_each_source_is_equal(sources, folder, bucket, tmp_path):
    photos = load_image_folder(folder)
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    expected = TransferClassifier(extractor).fit(photos.data, photos.target)
    rows, scores = extractor.fit_transform(photos.data), expected.predict_proba(photos.data)
    assert extractor.report_["n_hits"] == 12
    for loaded in loaded_from_all(sources, folder, bucket):
        np.testing.assert_array_equal(loaded.target, photos.target)
        np.testing.assert_array_equal(extractor.fit_transform(loaded.data), rows)
        assert (extractor.report_["n_forward"], extractor.report_["n_hits"]) == (0, 12)
        classifier = TransferClassifier(extractor).fit(loaded.data, loaded.target)
        np.testing.assert_array_equal(classifier.predict_proba(loaded.data), scores)


def test_load_image_folder_archive_names_left_out_files(sources, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for name in ("cat/1.png", "dog/a/2.JPG", "dog/notes.txt", "dog/.git/3.png", "4.png"):
            archive.writestr(name, b"")
        archive.writestr("__MACOSX/cat/._1.png", b"")
        archive.writestr("cat/Thumbs.db", b"")
    message = r"1 images .*class: 4.png; 2 files .*: dog/.git/3.png, dog/notes.txt"
    with pytest.warns(FolderWarning, match=message):
        photos = load_image_folder(tmp_path / "more.zip")
    assert photos.data.tolist() == [
        f"zip://cat/1.png::{tmp_path / 'more.zip'}",
        f"zip://dog/a/2.JPG::{tmp_path / 'more.zip'}",
    ]


@pytest.mark.filterwarnings("ignore::featx.exceptions.FolderWarning")
def test_load_image_folder_archive_has_groups_and_splits(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "split.zip", "w") as archive:
        for split in ("train", "test"):
            for path in folder.rglob("*.png"):
                archive.write(path, f"all/{split}/{path.relative_to(folder)}")
    with pytest.raises(
        InputError, match=r"holds the splits test, train, not classes.*split='test'"
    ):
        load_image_folder(tmp_path / "split.zip")
    photos = load_image_folder(tmp_path / "split.zip", split="train", groups="subfolder")
    on_disk = load_image_folder(folder, groups="subfolder")
    np.testing.assert_array_equal(photos.target, on_disk.target)
    np.testing.assert_array_equal(photos.groups, on_disk.groups)
    assert all(url.startswith("zip://all/train/") for url in photos.data)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no files"),
        (["1.png"], "has no folders in it"),
        (["cat/1.png", "dog/1.txt"], "1 of 2 class folders hold no image"),
    ],
)
def test_load_image_folder_faulty_archive_raises(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "faulty.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(InputError, match=message):
        load_image_folder(tmp_path / "faulty.zip")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("zip://::/none/photos.zip", "cannot be listed: no such file"),
        ("https://me:word@127.0.0.1/photos", "'https://127.0.0.1/photos': web servers do not list"),
        ("memory://nothing/here", "cannot be listed: no such file|holds no files"),
        ("unknown://photos", "cannot be listed: ValueError: Protocol not known: unknown"),
    ],
)
def test_load_image_folder_faulty_url_raises(url, message):
    with pytest.raises(InputError, match=message):
        load_image_folder(url)


def test_list_images_takes_archives_and_urls(sources, folder, bucket):
    expected = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    url = f"zip://photos/cat/owner0/0.png::{sources / 'photos.zip'}"
    assert list_images([url, "http://127.0.0.1/a"]) == [url, "http://127.0.0.1/a"]
    listed = list_images([sources / "photos.tar"])
    assert [path.partition("::")[0] for path in listed] == [f"tar://{path}" for path in expected]
    with pytest.warns(FolderWarning, match=r"1 files .*: photos.csv"):
        listed = list_images([f"{bucket}/photos"])
    assert listed == [f"{bucket}/photos/{path}" for path in expected]


def test_list_images_archive_without_images_raises(tmp_path):
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("cat/1.txt", b"")
    with (
        pytest.warns(FolderWarning, match=r"cat/1\.txt"),
        pytest.raises(InputError, match=r"1 folders hold no image .*texts\.zip"),
    ):
        list_images([tmp_path / "texts.zip"])


def test_load_image_folder_bucket_ignores_folder_objects(bucket, folder):
    files = fsspec.filesystem("s3", use_listings_cache=False)
    for marker in ("photos", "photos/cat", "photos/bird"):
        files.call_s3("put_object", Bucket="animals", Key=f"{marker}/", Body=b"")
    with pytest.warns(FolderWarning, match=r": 1 files .*: photos.csv$"):
        photos = load_image_folder(f"{bucket}/photos")
    assert photos.target_names == ["cat", "dog"]


def test_list_images_names_with_marks_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in ("cat/1.png", "cat/a::b.png"):
            archive.writestr(name, b"")
    for list_of in (load_image_folder, lambda place: list_images([place])):
        with pytest.warns(FolderWarning, match="1 files were left out, since '::' ends .*a::b.png"):
            list_of(tmp_path / "odd.zip")


def test_load_image_folder_tar_of_current_folder(folder, tmp_path):
    with tarfile.open(tmp_path / "photos.tgz", "w:gz") as archive:
        for label in CLASSES:
            archive.add(folder / label, f"./{label}")
    packed = load_image_folder(tmp_path / "photos.tgz", groups="subfolder")
    for url, label, group in zip(packed.data, packed.target, packed.groups, strict=True):
        path = url.partition("::")[0].removeprefix("tar://")
        assert path.startswith(f"{label}/{group}/")
        assert as_samples([url]).content(0) == (folder / path).read_bytes()


def test_load_table_relative_paths_become_urls(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n./cat #1.png,a\ndog/2.png,b\n")
    found = load_table(tmp_path / "t.csv", base="https://host/photos/")
    assert found.data.tolist() == [
        "https://host/photos/cat %231.png",
        "https://host/photos/dog/2.png",
    ]
    found = load_table(tmp_path / "t.csv", base="s3://bucket/photos")
    assert found.data[0] == "s3://bucket/photos/cat #1.png"


def test_load_table_faulty_url_raises(sources):
    with pytest.raises(InputError, match=r"photos.csv.* cannot be read: no such file"):
        load_table(f"zip://photos.csv::{sources / 'photos.zip'}")
    with pytest.raises(InputError, match=r"'https://127.0.0.1/t' does not end in .csv"):
        load_table("https://me:word@127.0.0.1/t")
    with pytest.raises(ParameterError, match="target='breed'"):
        load_table(f"file://{sources}/photos/photos.csv", target="breed")


@pytest.mark.parametrize(
    "load",
    [
        lambda url: load_table(f"{url}.csv"),
        lambda url: load_table(f"{url}.parquet"),
        lambda url: load_image_folder(f"zip://::{url}.zip"),
        lambda url: load_webdataset(f"{url}.tar"),
    ],
)
def test_load_url_tracebacks_have_no_secrets(load):
    word = "b64" * 3  # not in this form in a line of a traceback
    with FileServer() as server, pytest.raises(InputError, match="no such file") as caught:
        load(server.url("none").replace("//", f"//me:{word}@"))
    assert word not in "".join(traceback.format_exception(caught.value))


def test_load_table_absolute_paths_beside_urls_stay(tmp_path):
    image = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(image)
    (tmp_path / "t.csv").write_text(f"path,label\n{image},a\nmemory://x/2.png,b\n3.png,c\n")
    found = load_table(tmp_path / "t.csv", base="s3://bucket/photos")
    assert found.data.tolist() == [str(image), "memory://x/2.png", "s3://bucket/photos/3.png"]
    assert found.names == found.data.tolist()
