"""Tables: files and frames whose columns hold samples, targets and groups."""

import io
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from featx import FeatureExtractor, TransferClassifier, load_image_folder, load_table
from featx.exceptions import BadSampleError, InputError, ParameterError
from featx.inputs.table_files import ParquetColumn

PATHS = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
LABELS = ["cat", "cat", "dog", "dog"]
COLUMNS = {"path": PATHS, "label": LABELS, "owner": ["Ann", "Bob", "Ann", "Bob"]}


@pytest.fixture
def photos(tmp_path):
    """Four images in folders of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    for path, image in zip(PATHS, pixels, strict=True):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / path)
    return tmp_path


def write(path, columns, separator=","):
    rows = [separator.join(columns), *map(separator.join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n")
    return path


def as_csv(folder, columns):
    return write(folder / "table.csv", columns)


def as_csv_of_semicolons(folder, columns):
    return write(folder / "table.csv", columns, ";")


def as_tsv(folder, columns):
    return write(folder / "table.tsv", columns, "\t")


def as_json_lines(folder, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (folder / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / "table.jsonl"


def as_parquet(folder, columns):
    parquet.write_table(pa.table(columns), folder / "table.parquet")
    return folder / "table.parquet"


def as_pandas(folder, columns):
    return pd.DataFrame(columns)


def as_polars(folder, columns):
    return pl.DataFrame(columns)


def as_arrow(folder, columns):
    return pa.table(columns)


FILES = [as_csv, as_csv_of_semicolons, as_tsv, as_json_lines, as_parquet]
FRAMES = [as_pandas, as_polars, as_arrow]


@pytest.mark.parametrize("make", FILES + FRAMES)
def test_load_table_has_samples_targets_and_groups(make, photos):
    base = photos if make in FRAMES else None
    found = load_table(make(photos, COLUMNS), groups="owner", base=base)
    assert found.data.tolist() == [str(photos / path) for path in PATHS]
    assert found.target.tolist() == LABELS
    assert found.target_names == ["cat", "dog"]
    assert list(found.groups) == COLUMNS["owner"]
    assert repr(found) == "4 images of 2 classes in 2 groups"


@pytest.mark.parametrize("make", [as_csv, as_json_lines, as_parquet, as_pandas])
def test_fit_on_table_finds_rows_of_folder(make, photos):
    base = photos if make is as_pandas else None
    folder = load_image_folder(photos)
    expected = FeatureExtractor("tiny").fit_transform(folder.data)
    found = load_table(make(photos, COLUMNS), base=base)
    classifier = TransferClassifier("tiny").fit(found.data, found.target)
    assert classifier.report_.n_forward == 0
    np.testing.assert_array_equal(classifier.transform(found.data), expected)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "0", "1", "-2"], np.array([1, 0, 1, -2])),
        (["1", "0.5", "1e-3", "-2"], np.array([1, 0.5, 1e-3, -2])),
        (["007", "1", "2", "3"], np.array(["007", "1", "2", "3"])),
        (["nan", "1", "2", "3"], np.array(["nan", "1", "2", "3"])),
        ([str(10**18 + n) for n in range(4)], 10**18 + np.arange(4)),
        ([str(10**19 + n) for n in range(4)], np.arange(4).astype(np.uint64) + np.uint64(10**19)),
        ([str(10**20 + n) for n in range(4)], np.array([str(10**20 + n) for n in range(4)])),
        ([str(10**18), "0.5", "1", "2"], np.array([str(10**18), "0.5", "1", "2"])),
        (["1_0", "1", "2", "3"], np.array(["1_0", "1", "2", "3"])),
        (["True", "False", "True", "None"], np.array(["True", "False", "True", "None"])),
    ],
)
def test_load_table_text_becomes_numbers_if_all_are(cells, expected, photos):
    found = load_table(as_csv(photos, {"path": PATHS, "label": cells}))
    assert found.target.dtype.kind == expected.dtype.kind
    np.testing.assert_array_equal(found.target, expected)
    classes = [] if expected.dtype.kind == "f" else np.unique(expected).tolist()
    assert found.target_names == classes


@pytest.mark.parametrize("make", [as_json_lines, as_parquet, *FRAMES])
def test_load_table_typed_text_stays_text(make, photos):
    found = load_table(make(photos, {"path": PATHS, "label": ["1", "2", "1", "2"]}))
    assert found.target.tolist() == ["1", "2", "1", "2"]


@pytest.mark.parametrize("make", [as_csv, as_json_lines, as_parquet, *FRAMES])
def test_load_table_semicolons_are_several_labels(make, photos):
    labels = ["cat;dog", "dog", "", " cat "]
    found = load_table(make(photos, {"path": PATHS, "label": labels}))
    assert found.target_names == ["cat", "dog"]
    assert found.target.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("make", [as_json_lines, as_parquet, *FRAMES])
def test_load_table_lists_are_several_labels(make, photos):
    found = load_table(make(photos, {"path": PATHS, "label": [["b", "a"], ["b"], [], ["a"]]}))
    assert found.target_names == ["a", "b"]
    assert found.target.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("make", FILES + FRAMES)
def test_load_table_several_columns_are_outputs(make, photos):
    columns = {"path": PATHS, "x": ["1.5", "2.5", "3", "4"], "y": ["1", "2", "3", "4"]}
    if make not in (as_csv, as_csv_of_semicolons, as_tsv):
        columns |= {name: list(map(float, columns[name])) for name in "xy"}
    found = load_table(make(photos, columns), target=["x", "y"])
    np.testing.assert_array_equal(found.target, [[1.5, 1], [2.5, 2], [3, 3], [4, 4]])
    assert found.target_names == ["x", "y"]


def test_load_table_without_target_has_none(photos):
    found = load_table(as_csv(photos, COLUMNS), target=None)
    assert (found.target, found.target_names, found.groups) == (None, [], None)
    assert repr(found) == "4 images"
    assert found._repr_html_().count("<img") == 4


def encoded_images(photos):
    return [(photos / path).read_bytes() for path in PATHS]


def record(content, path=None):
    return {"bytes": content, "path": path}


@pytest.mark.parametrize("is_record", [False, True])
def test_load_table_parquet_images_are_read_lazily(is_record, photos):
    contents = encoded_images(photos)
    images = [record(content) for content in contents] if is_record else contents
    table = pa.table({"image": images, "label": LABELS})
    parquet.write_table(table, photos / "images.parquet", row_group_size=3)
    found = load_table(photos / "images.parquet", sample="image")
    assert isinstance(found.data, ParquetColumn)
    assert list(found.data) == contents
    assert found.data[-1] == contents[3]
    assert pickle.loads(pickle.dumps(found.data))[1:3] == contents[1:3]
    with pytest.raises(IndexError):
        found.data[4]
    expected = FeatureExtractor("tiny", cache=None).fit_transform(
        [str(photos / path) for path in PATHS]
    )
    classifier = TransferClassifier("tiny").fit(found.data, found.target)
    np.testing.assert_array_equal(classifier.transform(found.data), expected)
    assert repr(found) == "4 samples of 2 classes"


def test_load_table_parquet_changed_later_raises(photos):
    def write(contents):
        table = pa.table({"image": contents, "label": LABELS})
        parquet.write_table(table, photos / "images.parquet", row_group_size=3)

    write([bytes([row]) for row in range(len(LABELS))])
    found = load_table(photos / "images.parquet", sample="image")
    assert found.data[0] == bytes(1)
    write([bytes([row, row]) for row in range(len(LABELS))])
    with pytest.raises(InputError, match="was changed after it was loaded: load it again"):
        found.data[len(LABELS) - 1]


def test_load_table_parquet_damaged_image_is_named(photos):
    contents = [*encoded_images(photos)[:3], b"no image"]
    parquet.write_table(pa.table({"image": contents, "label": LABELS}), photos / "t.parquet")
    found = load_table(photos / "t.parquet", sample="image")
    with pytest.raises(BadSampleError, match=r"\[3\]"):
        FeatureExtractor("tiny").fit_transform(found.data)


@pytest.mark.parametrize("make", [as_pandas, as_polars, as_arrow, as_parquet, as_json_lines])
def test_load_table_records_of_paths_are_paths(make, photos):
    records = [{"bytes": None, "path": path} for path in PATHS]
    found = load_table(make(photos, {"path": records, "label": LABELS}), base=photos)
    assert found.data.tolist() == [str(photos / path) for path in PATHS]


def test_records_are_samples_wherever_items_are(photos):
    records = [record(content) for content in encoded_images(photos)]
    records[1] = record(None, str(photos / PATHS[1]))
    expected = FeatureExtractor("tiny").fit_transform([str(photos / path) for path in PATHS])
    extractor = FeatureExtractor("tiny")
    np.testing.assert_array_equal(extractor.fit_transform(records), expected)
    assert extractor.report_.n_forward == 0


def test_load_table_keeps_names_that_are_not_utf8(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff.png,cat\n")
    found = load_table(tmp_path / "t.csv")
    assert found.data[0] == str(tmp_path / "\udcff.png")


def test_load_table_reads_quotes_and_byte_order_mark(tmp_path):
    text = '\ufeffpath,label\n"a, b.png","two\nlines"\n\n"c"".png",x\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = load_table(tmp_path / "t.csv", base="/photos")
    assert found.data.tolist() == ["/photos/a, b.png", '/photos/c".png']
    assert found.target.tolist() == ["two\nlines", "x"]


def test_load_table_missing_columns_are_all_named(photos):
    with pytest.raises(ParameterError) as caught:
        load_table(as_csv(photos, COLUMNS), sample="file", target="lable", groups="patient")
    for part in (
        "sample='file': ",
        "target='lable': ",
        "Did you mean 'label'?",
        "groups='patient'",
    ):
        assert part in str(caught.value)
    assert "Its columns: path, label, owner." in str(caught.value)


def test_load_table_missing_values_are_all_named(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,owner\n1.png,,A\n,cat,A\n3.png,cat\n")
    with pytest.raises(InputError) as caught:
        load_table(tmp_path / "t.csv", groups="owner")
    for column, row in (("path", 1), ("label", 0), ("owner", 2)):
        assert f"column {column!r}: no value in 1 of 3 rows: {row} (the first" in str(caught.value)


@pytest.mark.parametrize("make", [as_pandas, as_polars, as_arrow, as_json_lines, as_parquet])
def test_load_table_null_is_missing(make, photos):
    labels = ["cat", None, "dog", None]
    with pytest.raises(InputError, match="'label': no value in 2 of 4 rows: 1, 3"):
        load_table(make(photos, {"path": PATHS, "label": labels}))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("path,label\n", "has no rows"),
        ("path,label\n1.png,cat,dog\n", "3 cells on line 2, but 2 columns"),
        (f"path,label\n1.png,{'x' * 200_000}\n", "cannot be read after line 1: field larger"),
    ],
)
def test_load_table_unsound_csv_raises(content, fault, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=fault):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "sample='path': .*Its columns: none"),
        ("path,label,label\n1.png,cat,dog\n", "target='label': .*which has 2"),
    ],
)
def test_load_table_without_one_such_column_raises(content, fault, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ParameterError, match=fault):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("t.jsonl", b'{"path": 1\n', "no JSON on line 1"),
        ("t.jsonl", b"[1]\n", "no JSON object on line 1"),
        ("t.jsonl", b"\xff\n", "cannot be read"),
        ("t.parquet", b"no table", "cannot be read"),
        ("t.xlsx", b"", "does not end in .csv, .jsonl"),
    ],
)
def test_load_table_unsound_file_raises(name, content, fault, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=fault):
        load_table(tmp_path / name)


def test_load_table_missing_file_raises(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv': no such file"):
        load_table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"table": 5}, "table"),
        ({"sample": 5}, "sample"),
        ({"target": 5}, "target"),
        ({"target": [5]}, "target"),
        ({"groups": 5}, "groups"),
    ],
)
def test_load_table_parameter_of_another_type_raises(arguments, name):
    with pytest.raises(ParameterError, match=f"{name}="):
        load_table(**{"table": pd.DataFrame(COLUMNS), **arguments})


def test_load_table_lists_beside_other_targets_raise(photos):
    columns = {"path": PATHS, "a": ["x;y"] * 4, "b": LABELS}
    with pytest.raises(InputError, match="holds lists of labels"):
        load_table(as_csv(photos, columns), target=["a", "b"])


def test_load_table_mixed_targets_raise(photos):
    columns = {"path": PATHS, "a": ["1", "2", "3", "4"], "b": LABELS}
    with pytest.raises(InputError, match="several types"):
        load_table(as_csv(photos, columns), target=["a", "b"])


def test_load_table_images_in_a_frame_are_samples(photos):
    images = [Image.open(io.BytesIO(content)) for content in encoded_images(photos)]
    found = load_table(pd.DataFrame({"image": images, "label": LABELS}), sample="image")
    assert found.data == images
    assert repr(found) == "4 samples of 2 classes"


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("make", [as_parquet, as_pandas, as_json_lines])
def test_records_of_paths_start_from_base(make, is_mixed, photos, tmp_path, monkeypatch):
    """Not from the working directory, where other files may have the same names."""
    monkeypatch.chdir(tmp_path)
    records = [record(None, path) for path in PATHS]
    if is_mixed and make is not as_json_lines:
        records[2] = record((photos / PATHS[2]).read_bytes())
    table = make(photos, {"path": records, "label": LABELS})
    if make is as_parquet and is_mixed:
        records.insert(0, record((photos / PATHS[2]).read_bytes()))
        table = make(photos, {"path": records, "label": [*LABELS, "cat"]})
    found = load_table(table, base=photos)
    assert [item for item in found.data if isinstance(item, str)][:2] == [
        str(photos / path) for path in PATHS[:2]
    ]
    assert len(FeatureExtractor("tiny").fit_transform(found.data)) == len(found.target)
    assert found._repr_html_()


def test_parquet_column_is_read_by_threads(photos):
    contents = encoded_images(photos) * 50
    table = pa.table({"image": contents})
    parquet.write_table(table, photos / "t.parquet", row_group_size=7)
    column = load_table(photos / "t.parquet", sample="image", target=None).data
    rows = np.random.default_rng(0).integers(0, 200, 400).tolist()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(column.__getitem__, rows)) == [contents[row] for row in rows]


def test_parquet_column_of_changed_file_raises(photos):
    contents = encoded_images(photos)
    parquet.write_table(pa.table({"image": contents}), photos / "t.parquet")
    column = load_table(photos / "t.parquet", sample="image", target=None).data
    stored = pickle.dumps(column)
    assert list(pickle.loads(stored)) == contents
    parquet.write_table(pa.table({"image": [*contents[::-1], b"x"]}), photos / "t.parquet")
    with pytest.raises(InputError, match="was changed after it was loaded"):
        pickle.loads(stored)
    (photos / "t.parquet").unlink()
    with pytest.raises(InputError, match="no such file"):
        pickle.loads(stored)


@pytest.mark.parametrize("cell", ['"y', 'a"b"'])
def test_load_table_open_quote_names_its_line(cell, tmp_path):
    rows = [f"{n}.png,x" for n in range(20)]
    rows[5] = f"5.png,{cell}"
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    if cell == 'a"b"':  # as spreadsheets read it
        assert load_table(tmp_path / "t.csv").target[5] == 'a"b"'
        return
    with pytest.raises(InputError, match="after line 6: a quote is not closed"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize("column", ["path", "label"])
def test_load_table_long_cell_takes_little_memory(column, tmp_path):
    rows = [f"{n}.png,x" for n in range(20_000)]
    rows[7] = f"{'p' * 100_000},x" if column == "path" else f"7.png,{'p' * 100_000}"
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    if column == "path":
        assert load_table(tmp_path / "t.csv").data.nbytes < 1e6
        return
    with pytest.raises(InputError, match="row 7 has 100,000 characters: is a quote missing"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ([["a", 1], ["b"]], "lists of int, str"),
        ([[0.5, 0.25], [1.0, 2.0]], "lists of float"),
        ([["a"], 2], "row 1 has 2, beside rows with lists"),
        ([["a", None], ["b"]], "row 0 has a missing value among its labels"),
        ([[], []], "no row has a label"),
        ([[["a"]], [["b"]]], "lists of list"),
    ],
)
def test_load_table_faulty_lists_of_labels_raise(labels, fault, tmp_path):
    path = as_json_lines(tmp_path, {"path": ["1.png", "2.png"], "label": labels})
    with pytest.raises(InputError, match=rf"column 'label': .*{fault}"):
        load_table(path)


def test_load_table_groups_of_lists_raise(tmp_path):
    columns = {"path": ["1.png", "2.png"], "label": ["a", "b"], "g": [["x", "y"], ["z"]]}
    with pytest.raises(InputError, match="column 'g': groups has lists"):
        load_table(as_json_lines(tmp_path, columns), groups="g")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_load_table_other_encoding_names_the_cure(encoding, tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n1.png,\xe9t\xe9\n", encoding=encoding)
    with pytest.raises(InputError, match=r"not UTF-8.* UTF-8"):
        load_table(tmp_path / "t.csv")


def test_load_table_lazy_frame_names_the_cure(photos):
    with pytest.raises(InputError, match=r"pass its \.collect\(\)"):
        load_table(pl.DataFrame(COLUMNS).lazy())


@pytest.mark.parametrize(
    ("name", "header"), [("t.csv", '"path;x;y",label'), ("t.tsv", "path;1;2\tlabel;3")]
)
def test_load_table_delimiter_is_not_in_names(name, header, tmp_path):
    separator = "\t" if name == "t.tsv" else ","
    (tmp_path / name).write_text(f"{header}\n1.png{separator}cat\n")
    sample, target = (part.strip('"') for part in header.split(separator))
    found = load_table(tmp_path / name, sample=sample, target=target)
    assert (found.data[0], found.target[0]) == (str(tmp_path / "1.png"), "cat")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_load_table_pipe_raises_at_once(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match="no regular file"):
        load_table(tmp_path / "t.csv")


def test_load_table_bytes_as_groups_raise(tmp_path):
    columns = {"path": ["1.png", "2.png"], "label": ["a", "b"], "g": [b"x", b"y"]}
    with pytest.raises(InputError, match=r"column 'g': .*bytes"):
        load_table(as_parquet(tmp_path, columns), groups="g")
