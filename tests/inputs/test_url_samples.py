"""Files of archives, buckets and servers give the rows of local files, each downloaded once."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import zipfile

import fsspec
import numpy as np
import pytest
from file_server import FileServer
from PIL import Image

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import (
    BadSampleError,
    BadSampleWarning,
    InputError,
    MissingExtraError,
)
from featx.inputs.file_index import FileIndex
from featx.inputs.recognize import as_samples
from featx.readers import Page, Region, TiffReader

N_FILES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images of which the last equals the first."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (N_FILES, 16, 16, 3), dtype=np.uint8)
    noise[-1] = noise[0]
    for number, image in enumerate(noise):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return [str(folder / f"{number}.png") for number in range(N_FILES)]


@pytest.fixture(scope="module")
def archives(folder, paths, tmp_path_factory):
    place = tmp_path_factory.mktemp("archives")
    with zipfile.ZipFile(place / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"all/{pathlib.Path(path).name}")
    for name, mode in (("photos.tar", "w"), ("photos.tar.gz", "w:gz")):
        with tarfile.open(place / name, mode) as archive:
            archive.add(folder, "all")
    return place


@pytest.fixture
def server(paths):
    with FileServer() as server:
        server.files = {pathlib.Path(path).name: pathlib.Path(path).read_bytes() for path in paths}
        yield server


@pytest.fixture
def s3(paths, s3_server):
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir("photos")
    for path in paths:
        files.pipe(f"photos/all/{pathlib.Path(path).name}", pathlib.Path(path).read_bytes())
    yield files
    files.rm("photos", recursive=True)


def in_memory(paths):
    files = fsspec.filesystem("memory")
    for path in paths:
        files.pipe(f"/photos/{pathlib.Path(path).name}", pathlib.Path(path).read_bytes())
    return [f"memory://photos/{pathlib.Path(path).name}" for path in paths]


@pytest.fixture
def urls(request, archives, paths):
    """The URLs of the same files in a place."""
    names = [pathlib.Path(path).name for path in paths]
    place = request.param
    if place == "s3":
        request.getfixturevalue("s3")
        return [f"s3://photos/all/{name}" for name in names]
    if place == "http":
        server = request.getfixturevalue("server")
        return [server.url(name) for name in names]
    if place == "memory":
        return in_memory(paths)
    if place == "file":
        return [f"file://{path}" for path in paths]
    protocol, archive = place.split(" ")
    return [f"{protocol}://all/{name}::{archives / archive}" for name in names]


PLACES = "zip photos.zip", "tar photos.tar", "tar photos.tar.gz", "memory", "file", "http", "s3"
LASTING_PLACES = [place for place in PLACES if place != "memory"]  # that other processes see


@pytest.fixture(scope="module")
def expected(paths, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return FeatureExtractor("tiny", cache=cache).fit_transform(paths), cache


@pytest.mark.parametrize("urls", PLACES, indirect=True)
def test_transform_urls_embeds_distinct_files_once(urls, expected, tmp_path):
    extractor = FeatureExtractor("tiny", cache=tmp_path, n_jobs=2)
    np.testing.assert_array_equal(extractor.fit_transform(urls), expected[0])
    assert extractor.report_["n_forward"] == N_FILES - 1
    np.testing.assert_array_equal(extractor.transform(urls), expected[0])
    assert (extractor.report_["n_forward"], extractor.report_["n_hits"]) == (0, N_FILES)


@pytest.mark.parametrize("urls", PLACES, indirect=True)
def test_transform_urls_find_rows_of_paths(urls, expected):
    extractor = FeatureExtractor("tiny", cache=expected[1])
    np.testing.assert_array_equal(extractor.fit_transform(urls), expected[0])
    assert extractor.report_["n_forward"] == 0


@pytest.mark.parametrize("urls", PLACES, indirect=True)
def test_transform_missing_file_named_before_pass(urls, tmp_path):
    first, mark, archive = urls[0].partition("::")
    missing = f"{first.rpartition('/')[0]}/missing.png{mark}{archive}"
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    with pytest.raises(BadSampleError, match="no such file") as caught:
        extractor.fit_transform([*urls, missing])
    assert [fault.position for fault in caught.value.faults] == [N_FILES]
    extractor.set_params(on_error="nan")
    with pytest.warns(BadSampleWarning, match="no such file"):
        rows = extractor.fit_transform([missing, *urls])
    assert np.isnan(rows[0]).all()
    assert not np.isnan(rows[1:]).any()


@pytest.mark.parametrize("urls", ["zip photos.zip", "http"], indirect=True)
def test_transform_interrupted_pass_resumes(urls, expected, tmp_path):
    def stop(n_done, n_total):
        raise KeyboardInterrupt

    extractor = FeatureExtractor("tiny", cache=tmp_path, batch_size=8, verbose=stop)
    with pytest.raises(KeyboardInterrupt):
        extractor.fit_transform(urls)
    extractor.set_params(verbose=0)
    np.testing.assert_array_equal(extractor.fit_transform(urls), expected[0])
    assert extractor.report_["n_forward"] == N_FILES - 1 - 8


@pytest.mark.long
@pytest.mark.parametrize("urls", LASTING_PLACES, indirect=True)
def test_transform_killed_pass_resumes(urls, expected, tmp_path):
    code = (
        "import os, signal, featx\n"
        "import featx.extraction.row_writer\n"
        "featx.extraction.row_writer._STORE_EVERY_S = 0.0\n"
        "def kill(n_done, n_total):\n"
        "    if n_done >= 12:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"extractor = featx.FeatureExtractor('tiny', cache={str(tmp_path)!r}, batch_size=4)\n"
        f"extractor.set_params(verbose=kill).fit_transform({urls!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    n_stored = EmbeddingCache(tmp_path).info()["n_rows"]
    assert 8 <= n_stored < N_FILES - 1
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    np.testing.assert_array_equal(extractor.fit_transform(urls), expected[0])
    assert extractor.report_["n_forward"] == N_FILES - 1 - n_stored


@pytest.mark.long
@pytest.mark.parametrize("urls", LASTING_PLACES, indirect=True)
def test_transform_warm_urls_of_each_place_load_no_tensorflow(urls, expected):
    FeatureExtractor("tiny", cache=expected[1]).fit_transform(urls)
    code = (
        "import sys, featx\n"
        f"extractor = featx.FeatureExtractor('tiny', cache={str(expected[1])!r})\n"
        f"extractor.fit_transform({urls!r})\n"
        "print(extractor.report_['n_hits'], sorted({'tensorflow', 'keras'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{N_FILES} []\n"


def test_transform_warm_urls_load_no_tensorflow(archives, expected):
    urls = [f"zip://all/{number}.png::{archives / 'photos.zip'}" for number in range(N_FILES)]
    code = (
        "import sys, featx\n"
        f"featx.FeatureExtractor('tiny', cache={str(expected[1])!r}).fit_transform({urls!r})\n"
        "print(sorted({'tensorflow', 'keras', 'aiohttp'} & sys.modules.keys()))"
    )
    FeatureExtractor("tiny", cache=expected[1]).fit_transform(urls)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_transform_mixed_items_keep_their_order(server, paths, expected, tmp_path):
    mixed = [
        server.url("0.png"),
        paths[1],
        pathlib.Path(paths[2]).read_bytes(),
        np.asarray(Image.open(paths[3])),
        pathlib.Path(paths[4]),
    ]
    rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(mixed)
    np.testing.assert_allclose(rows, expected[0][:5], rtol=1e-5, atol=1e-5)


def test_transform_parts_beside_urls_keep_rows(paths, tmp_path):
    images = [Image.open(path) for path in paths[:3]]
    images[0].save(tmp_path / "stack.tif", save_all=True, append_images=images[1:])
    images[0].save(tmp_path / "one.tif")
    fsspec.filesystem("memory").pipe("/one.tif", (tmp_path / "one.tif").read_bytes())
    parts = [
        *(Page(tmp_path / "stack.tif", index) for index in range(3)),
        *(Region(tmp_path / "one.tif", x, 0, 8, 8) for x in (0, 8)),
    ]
    alone = FeatureExtractor("tiny", cache=None, read=TiffReader()).fit_transform(parts)
    extractor = FeatureExtractor("tiny", cache=tmp_path / "cache", read=TiffReader())
    for n_forward in (6, 0):
        rows = extractor.fit_transform(["memory://one.tif", *parts])
        np.testing.assert_allclose(rows[1:], alone, rtol=1e-5, atol=1e-5)
        assert extractor.report_["n_forward"] == n_forward
    extractor.transform(parts)
    assert extractor.report_["n_forward"] == 0


def test_transform_repeated_url_is_downloaded_once(server, tmp_path):
    urls = [server.url("0.png"), server.url("1.png"), server.url("0.png")] * 40
    rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(urls)
    assert server.n_sent() == 2
    np.testing.assert_array_equal(rows[0], rows[-1])


def test_transform_warm_server_sends_no_file(server, tmp_path):
    urls = [server.url(name) for name in server.files]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    extractor.fit_transform(urls)
    server.requests.clear()
    extractor.transform(urls)
    assert server.requests == {("HEAD", name): 1 for name in server.files}


def test_transform_warm_bucket_is_listed_once(s3, tmp_path, caplog):
    urls = [f"s3://photos/all/{number}.png" for number in range(N_FILES)]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    extractor.fit_transform(urls)
    caplog.clear()
    with caplog.at_level("INFO", logger="werkzeug"):
        extractor.transform(urls)
    requests = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert len(requests) == 1
    assert "list-type=2" in requests[0]


def test_transform_changed_object_is_embedded_again(s3, paths, expected, tmp_path):
    urls = [f"s3://photos/all/{number}.png" for number in range(N_FILES)]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    extractor.fit_transform(urls)
    s3.pipe("photos/all/3.png", pathlib.Path(paths[4]).read_bytes())
    np.testing.assert_array_equal(extractor.transform(urls)[3], expected[0][4])


def test_transform_changed_file_of_server_is_embedded(server, expected, tmp_path):
    urls = [server.url(name) for name in server.files]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    extractor.fit_transform(urls)
    server.files["3.png"] = server.files["4.png"]
    np.testing.assert_array_equal(extractor.transform(urls)[3], expected[0][4])


def test_transform_unreliable_slow_server_is_retried(server, expected, tmp_path):
    server.n_cut.update({"1.png": 2, "5.png": 1})
    server.n_busy.update({"2.png": 2, "7.png": 1})
    server.delay_s = 0.05
    urls = [server.url(name) for name in server.files]
    rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(urls)
    np.testing.assert_array_equal(rows, expected[0])


def test_transform_file_changed_meanwhile_is_fault(server, tmp_path):
    def change(name):
        if name == "3.png":
            server.files[name] = server.files["4.png"]

    server.on_get = change
    urls = [server.url(name) for name in server.files]
    with pytest.raises(BadSampleError, match="changed while it was read") as caught:
        FeatureExtractor("tiny", cache=tmp_path).fit_transform(urls)
    assert [fault.position for fault in caught.value.faults] == [3]


def test_transform_unknown_state_is_downloaded_again(server, expected, tmp_path):
    server.etags = server.times = False
    urls = [server.url(name) for name in server.files]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    extractor.fit_transform(urls)
    np.testing.assert_array_equal(extractor.transform(urls), expected[0])
    assert server.n_sent("2.png") == 2
    server.files["3.png"] = server.files["4.png"]
    np.testing.assert_array_equal(extractor.transform(urls)[3], expected[0][4])


def test_transform_replaced_archive_gives_new_rows(archives, expected, tmp_path):
    def pack(number):
        with zipfile.ZipFile(archives / "photos.zip") as photos:
            image = photos.read(f"all/{number}.png")
        with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
            archive.writestr("a.png", image)

    pack(3)
    urls = [f"zip://a.png::{tmp_path / 'one.zip'}"]
    extractor = FeatureExtractor("tiny", cache=tmp_path / "cache")
    np.testing.assert_array_equal(extractor.fit_transform(urls)[0], expected[0][3])
    pack(4)
    np.testing.assert_array_equal(extractor.transform(urls)[0], expected[0][4])


def packed(paths, number):
    """Return an archive with one of the images as 0.png."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(paths[number], "0.png")
    return file.getvalue()


@pytest.mark.parametrize("ranges", [False, True])
def test_transform_replaced_archive_of_unknown_state(server, paths, expected, ranges, tmp_path):
    server.etags = server.times = False
    server.ranges = ranges
    urls = [f"tar://0.png::{server.url('one.tar')}"]
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    for number in (3, 4):
        server.files["one.tar"] = packed(paths, number)
        row = extractor.fit_transform(urls)[0]
        np.testing.assert_array_equal(row, expected[0][number])


def test_keys_archive_changed_while_opened_is_reason(server, paths):
    server.files["one.tar"] = packed(paths, 3)
    server.on_get = lambda name: server.files.update({name: packed(paths, 4)})
    _, faults = as_samples([f"tar://0.png::{server.url('one.tar')}"]).keys(FileIndex(None))
    assert "its archive: changed while it was read" in faults[0].reason


def test_keys_archive_of_same_size_and_time(paths, tmp_path):
    archive, keys = tmp_path / "one.tar", []
    urls = [f"tar://0.png::file://{archive}"]
    for number in (3, 4):
        archive.write_bytes(packed(paths, number))
        os.utime(archive, (1e9, 1e9))
        keys.append(as_samples(urls).keys(FileIndex(None))[0][0])
    assert keys[0] != keys[1]


def test_keys_many_archives_open_few_files(paths, tmp_path):
    urls = [f"tar://0.png::{tmp_path}/{number}.tar" for number in range(140)]
    for url in urls:
        pathlib.Path(url.partition("::")[2]).write_bytes(packed(paths, 0))
    _, faults = as_samples(urls).keys(FileIndex(None))
    opened = [path for path in pathlib.Path("/proc/self/fd").iterdir() if path.exists()]
    assert not faults
    assert sum(os.readlink(path).startswith(str(tmp_path)) for path in opened) <= 128


def test_keys_replaced_archive_of_listed_bucket(s3, paths):
    keys, urls = [], ["tar://0.png::s3://photos/packed/one.tar"]
    for number in (3, 4):
        s3.pipe("photos/packed/one.tar", packed(paths, number) + bytes(10240 * number))
        fsspec.filesystem("s3").ls("photos/packed", detail=True)  # keeps sizes and ETags
        keys += as_samples([*urls, paths[number]]).keys(FileIndex(None))[0].tolist()
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_keys_files_at_root_of_store(paths):
    files = fsspec.filesystem("memory")
    for path in paths:
        files.pipe(f"/{pathlib.Path(path).name}", pathlib.Path(path).read_bytes())
    urls = [f"memory://{pathlib.Path(path).name}" for path in paths]
    assert as_samples(urls).keys(FileIndex(None))[1] == []


@pytest.mark.parametrize("time", ["yesterday", "0", "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_keys_odd_time_of_change_is_unknown(server, time):
    server.etags = False
    server.changed_s["0.png"] = time
    assert as_samples([server.url("0.png")]).keys(FileIndex(None))[1] == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("zip://a.png::{}/none.zip", "its archive: no such file"),
        ("zip://a.png::{}/photos.tar", "its archive: BadZipFile"),
        ("tar://a.png::{}/photos.zip", "its archive: not a tar file"),
        ("zip://all::{}/photos.zip", "no such file in the archive"),
        ("unknown://a.png", "Protocol not known: unknown"),
    ],
)
def test_keys_broken_place_is_reason(url, message, archives):
    _, faults = as_samples([url.format(archives)] * 2).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0, 1]
    assert message in faults[0].reason


def test_keys_damaged_member_is_reason(archives, tmp_path):
    content = bytearray((archives / "photos.zip").read_bytes())
    content[100] ^= 1
    (tmp_path / "damaged.zip").write_bytes(content)
    urls = [f"zip://all/{number}.png::{tmp_path / 'damaged.zip'}" for number in range(3)]
    _, faults = as_samples(urls).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0]
    assert "Bad CRC-32" in faults[0].reason


def test_keys_missing_package_is_named():
    with pytest.raises(MissingExtraError, match="gs:// need another package: Please install gcsfs"):
        as_samples(["gs://bucket/a.png"]).keys(FileIndex(None))


@pytest.mark.long
def test_keys_server_down_is_given_up(server):
    server.n_busy.update(dict.fromkeys(map("{}.png".format, range(200)), 1000))
    urls = [server.url(f"{number}.png") for number in range(200)]
    _, faults = as_samples(urls).keys(FileIndex(None))
    assert len(faults) == 200
    assert "the server answers 503" in faults[199].reason
    assert server.requests["HEAD", "199.png"] == 1


def test_keys_server_that_reports_present_time(server):
    server.etags = False
    times = iter(range(2**31, 2**32))
    server.changed_s["0.png"] = next(times)
    server.on_get = lambda name: server.changed_s.update({name: next(times)})
    assert as_samples([server.url("0.png")]).keys(FileIndex(None))[1] == []


@pytest.mark.long
def test_keys_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr("featx.inputs.places._SILENCE_S", 0.1)
    server.delay_s = 1.0
    _, faults = as_samples([server.url("0.png")]).keys(FileIndex(None))
    assert faults[0].reason == "the server does not answer"


def test_names_hide_secrets_of_urls(server):
    url = server.url("none.png").replace("//", "//me:word@") + "?v=1&X-Amz-Signature=b64"
    samples = as_samples([url])
    _, faults = samples.keys(FileIndex(None))
    assert samples.name(0) == server.url("none.png") + "?v=1&X-Amz-Signature=..."
    assert samples.path(0) == samples.name(0)
    assert "word" not in faults[0].reason
    assert "b64" not in faults[0].reason


def read_gray(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_transform_reader_of_bytes_takes_urls(server, paths, tmp_path):
    extractor = FeatureExtractor("tiny", read=read_gray, cache=tmp_path)
    rows = extractor.fit_transform([server.url(name) for name in server.files])
    assert extractor.report_["n_forward"] == N_FILES - 1
    np.testing.assert_array_equal(extractor.transform(paths), rows)
    assert extractor.report_["n_forward"] == 0


def test_transform_reader_of_paths_refuses_urls(archives, paths, tmp_path):
    url = f"zip://all/0.png::{archives / 'photos.zip'}"
    reader = ReaderOfPaths()
    with pytest.raises(InputError, match=r"X\[1\] is a URL, .*takes paths: pass local copies"):
        FeatureExtractor("tiny", read=reader).fit_transform([paths[0], url])


class ReaderOfPaths:
    takes = "path"

    def __call__(self, path):
        return np.asarray(Image.open(path))
