"""Labels, values and weights of any container stay unchanged, or an error names the reason."""

from decimal import Decimal

import keras
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    KNNProbe,
    LinearProbe,
    NearestMeanProbe,
    RidgeProbe,
    RidgeProbeRegressor,
    TransferClassifier,
    TransferRegressor,
    compare_heads,
    evaluate,
)
from featx._targets import as_labels, as_values, as_weights
from featx.exceptions import InputError

IDS = [2**62, 2**62 + 1, 7]
WORDS = ["cat", "dog", "cat"]
FLAGS = [True, False, True]
N = 24


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, 4)) + 6 * np.eye(4)[np.arange(N) % 3]).astype(np.float32)


@pytest.fixture
def extractor():
    inputs = keras.Input((4,))
    start = keras.initializers.Identity()
    outputs = keras.layers.Dense(4, kernel_initializer=start)(inputs)
    return FeatureExtractor(keras.Model(inputs, outputs))


class Torchlike:
    """A tensor on a device that NumPy cannot read, with torch's way out."""

    dtype = "torch.int64"

    def __init__(self, values):
        self.values = values

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self):
        return self.values


def numbered_rows(values):
    return {
        "list": values,
        "tuple": tuple(values),
        "iterator": iter(values),
        "numpy": np.array(values),
        "objects": np.array(values, dtype=object),
        "pandas": pd.Series(values),
        "category": pd.Series(values, dtype="category"),
        "pandas arrow": pd.Series(pd.array(pa.array(values).to_pandas(types_mapper=pd.ArrowDtype))),
        "polars": pl.Series(values),
        "arrow": pa.array(values),
        "arrow chunks": pa.chunked_array([values[:1], values[1:]]),
        "arrow dictionary": pa.array(values).dictionary_encode(),
        "masked": np.ma.array(values, mask=[False] * len(values)),
        "tensor": Torchlike(values),
        "arrow scalars": list(pa.array(values)),
        "arrays of no dimension": [np.array(value) for value in values],
        "values of a dictionary": dict(enumerate(values)).values(),
    }


@pytest.mark.parametrize("kind", numbered_rows(IDS))
@pytest.mark.parametrize(
    ("values", "dtypes"), [(IDS, "i"), (WORDS, "UO"), (FLAGS, "b"), ([0.5, 1.5, 0.5], "f")]
)
def test_as_labels_container_keeps_each_label(values, dtypes, kind):
    labels = as_labels(numbered_rows(values)[kind])
    assert labels.tolist() == values
    assert labels.dtype.kind in dtypes


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (pd.Series(IDS, dtype="Int64"), np.int64),
        (pd.array(IDS, dtype="Int64"), np.int64),
        (pd.Index(IDS, dtype="Int64"), np.int64),
        (pd.Series([2**63 + 1, 2**63 + 2, 7], dtype="UInt64"), np.uint64),
        ([2**63 + 1, 2**63 + 2, 7], np.uint64),
        (pd.Series(FLAGS, dtype="boolean"), bool),
        (pd.Series([0.5, 1.5], dtype="Float64"), np.float64),
        (np.array([1, 2], dtype=np.uint8), np.uint8),
        (np.array(["2020", "2021"], dtype="M8[D]"), "M8[D]"),
        (sparse.csr_matrix([[0, 1], [1, 0]]), np.int64),
    ],
    ids=str,
)
def test_as_labels_keeps_dtype_of_labels(labels, dtype):
    converted = as_labels(labels)
    assert converted.dtype == dtype
    dense = labels.toarray() if sparse.issparse(labels) else labels
    assert converted.tolist() == np.array(list(dense), dtype=dtype).tolist()


def test_as_labels_table_keeps_large_ids():
    signed, unsigned = np.array(IDS), np.array([1, 2, 2**63 + 1], np.uint64)
    nonnegative = as_labels(pd.DataFrame({"a": signed, "b": unsigned}))
    assert nonnegative.tolist() == [[2**62, 1], [2**62 + 1, 2], [7, 2**63 + 1]]
    with pytest.raises(InputError, match=r"floats beside integers above 2\*\*53"):
        as_labels(pd.DataFrame({"a": signed, "b": [1.0, 2.0, 3.0]}))
    with pytest.raises(InputError, match="no 64-bit dtype holds together"):
        as_labels(pd.DataFrame({"a": -signed, "b": unsigned}))
    small = pd.DataFrame({"a": [1, 2, 3], "b": [1.5, 2.0, 3.0], "c": [True, False, True]})
    assert as_labels(small[["a", "b"]]).tolist() == [[1, 1.5], [2, 2], [3, 3]]
    assert as_labels(small[["a", "c"]]).tolist() == [[1, 1], [2, 0], [3, 1]]
    assert as_values(pd.DataFrame({"a": signed, "b": [0.5, 2, 3]}))[:, 1].tolist() == [0.5, 2, 3]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"a": pd.array(IDS, dtype="Int64"), "b": [1, 2, 3]}),
        pl.DataFrame({"a": IDS, "b": [1, 2, 3]}),
        pa.table({"a": IDS, "b": [1, 2, 3]}),
    ],
    ids=["pandas", "polars", "arrow"],
)
def test_as_labels_columns_of_table_are_outputs(table):
    assert as_labels(table).tolist() == [[2**62, 1], [2**62 + 1, 2], [7, 3]]


def test_as_labels_tensorflow_gives_numbers_and_text():
    import tensorflow as tf

    assert as_labels(tf.constant(["ä", "b"])).tolist() == ["ä", "b"]
    assert as_labels(tf.Variable([1, 2])).tolist() == [1, 2]
    assert as_labels([tf.constant(3), tf.constant(4)]).tolist() == [3, 4]


def test_as_labels_words_ending_in_nul_differ():
    assert as_labels(["a", "a\0"]).tolist() == ["a", "a\0"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pd.Series([1, None, 2], dtype="Int64"), r"1 missing label \(rows \[1\]\), such as <NA>"),
        (pd.Series([True, None], dtype="boolean"), r"missing label \(rows \[1\]\)"),
        (pd.Series(["a", None], dtype="category"), r"missing label \(rows \[1\]\)"),
        (pl.Series(["a", None]), r"missing label \(rows \[1\]\)"),
        (pa.array([None, 1]), r"missing label \(rows \[0\]\)"),
        (np.ma.array([1, 2], mask=[0, 1]), r"missing label \(rows \[1\]\)"),
        ([0.0, np.nan], r"missing label \(rows \[1\]\), such as NaN"),
        (np.array(["2020", "NaT"], dtype="M8[D]"), r"missing label \(rows \[1\]\), such as NaT"),
        ([np.inf, 1.0], r"1 infinite label \(rows \[0\]\)"),
        ([1, "cat"], r"several types: int \(row 0\) and str \(row 1\)"),
        ([2**60 + 1, 0.5], r"integers above 2\*\*53"),
        ([2**64, 1], "such as 18446744073709551616: pass them as strings"),
        ([2**63, -1], "no 64-bit dtype holds together"),
        ([b"a", b"b"], "labels that are bytes: .*decode them"),
        ([Decimal("0.1")], "labels that are Decimal"),
        ([pd.Timestamp("2020-01-01")], "labels that are Timestamp"),
        ([1j, 2], r"several types|complex"),
        ([["cat", "dog"], ["cat"]], r"row 0: \['cat', 'dog'\]\): .*MultiLabelBinarizer"),
        ([{"cat"}, {"dog"}], "MultiLabelBinarizer"),
        ([np.zeros(2), np.zeros(3)], "MultiLabelBinarizer"),
        ({"cat"}, "set"),
        ("cat", "str"),
        (np.zeros((2, 2, 2)), r"y has shape \(2, 2, 2\)"),
        (3, r"shape \(\)"),
        (np.array(3), r"shape \(\)"),
    ],
    ids=str,
)
def test_as_labels_unusable_raises_with_rows(labels, message):
    with pytest.raises(InputError, match=message):
        as_labels(labels)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([Decimal("0.5"), 2], [0.5, 2.0]),
        ([2**70, 1], [2.0**70, 1.0]),
        (pd.Series([1, 2], dtype="Int64"), [1, 2]),
        (np.array([True, 2.5], dtype=object), [1.0, 2.5]),
        ([np.True_, False], [1.0, 0.0]),
    ],
    ids=str,
)
def test_as_values_numbers_of_any_type(values, expected):
    assert as_values(values).tolist() == expected


@pytest.mark.parametrize("values", [["a", "b"], [1, "a"], [b"a"], [1j]], ids=str)
def test_as_values_no_numbers_raise(values):
    with pytest.raises(InputError, match=r"a regressor needs numbers|Complex data not supported"):
        as_values(values)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, -2], r"2 negative weights \(rows \[1, 2\], such as -1.0\)"),
        ([1, np.nan, 1], r"1 missing weight \(rows \[1\]\), such as NaN"),
        (pd.Series([1, None, 1], dtype="Float64"), r"1 missing weight \(rows \[1\]\)"),
        (np.ma.array([1.0, 2, 3], mask=[0, 1, 0]), r"1 missing weight \(rows \[1\]\)"),
        ([1, np.inf, 1], r"1 infinite weight \(rows \[1\]\)"),
        ([0, 0, 0], "all are zero"),
        ([1e308, 1e308, 1e308], "sum is infinite"),
        ([np.ma.masked, 1, 1], r"1 missing weight \(rows \[0\]\)"),
        ([1, 1], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        (np.ones((3, 1)), r"sample_weight.shape == \(3, 1\), expected \(3,\)"),
        (["a", "b", "c"], "expected numbers"),
        (1.0, r"sample_weight has shape \(\)"),
    ],
    ids=str,
)
def test_as_weights_faulty_raise(weights, message):
    with pytest.raises(InputError, match=message):
        as_weights(weights, 3)


def faulty_fits(extractor, X):
    y, weights = np.arange(N) % 3, -np.ones(N)
    classifier = TransferClassifier(extractor)
    further = TransferClassifier(extractor, SGDClassifier())
    tuned = TransferClassifier(extractor, fine_tune=FineTune(epochs=1))
    return {
        "classifier": lambda: classifier.fit(X, y, weights),
        "regressor": lambda: TransferRegressor(extractor).fit(X, y, weights),
        "partial fit": lambda: further.partial_fit(X, y, [0, 1, 2], weights),
        "fine-tuning": lambda: tuned.fit(X, y, weights),
        "linear probe": lambda: LinearProbe().fit(X, y, weights),
        "ridge probe": lambda: RidgeProbe().fit(X, y, weights),
        "ridge regressor": lambda: RidgeProbeRegressor().fit(X, y, weights),
        "nearest mean": lambda: NearestMeanProbe().fit(X, y, weights),
    }


@pytest.mark.parametrize("job", faulty_fits(None, None))
def test_fit_negative_weights_raise_before_the_pass(job, extractor, vectors):
    with pytest.raises(InputError, match="24 negative weights"):
        faulty_fits(extractor, vectors)[job]()
    assert EmbeddingCache().info()["n_forward"] == 0


def test_fit_several_faults_are_one_error(extractor, vectors):
    y = ["cat", None] * (N // 2)
    with pytest.raises(InputError, match="3 faults") as caught:
        TransferClassifier(extractor).fit(vectors, y, -np.ones(N), groups=[1])
    for part in ("y has 12 missing labels", "24 negative weights", r"groups.shape == \(1,\)"):
        assert part.replace("\\", "") in str(caught.value)
    assert EmbeddingCache().info()["n_forward"] == 0


@pytest.mark.parametrize("fine_tune", [None, FineTune(epochs=1)], ids=["frozen", "tuned"])
def test_fit_nullable_ids_stay_three_classes(fine_tune, extractor, vectors):
    y = pd.Series(IDS * (N // 3), dtype="Int64")
    classifier = TransferClassifier(extractor, fine_tune=fine_tune, random_state=0).fit(vectors, y)
    assert classifier.classes_.tolist() == sorted(IDS)
    assert classifier.predict(vectors).tolist() == y.tolist()
    assert classifier.score(vectors, y) == 1
    wrong = y.replace({2**62: 2**62 + 1})
    assert classifier.score(vectors, wrong) == pytest.approx(2 / 3)


def test_fit_nullable_booleans_predict_booleans(extractor, vectors):
    y = pd.Series((np.arange(N) % 3 == 0).tolist(), dtype="boolean")
    classifier = TransferClassifier(extractor).fit(vectors, y)
    assert classifier.classes_.dtype == bool
    assert classifier.predict(vectors).tolist() == y.tolist()


@pytest.mark.parametrize(
    "probe", [LinearProbe(cv=2), RidgeProbe(cv=2), KNNProbe(cv=2), NearestMeanProbe()], ids=str
)
def test_probe_nullable_ids_stay_three_classes(probe, vectors):
    y = pd.Series(IDS * (N // 3), dtype="Int64")
    assert probe.fit(vectors, y).classes_.tolist() == sorted(IDS)
    assert probe.predict(vectors).tolist() == y.tolist()


def test_compare_and_evaluate_tell_nullable_ids_apart(vectors):
    y = pd.Series(IDS * (N // 3), dtype="Int64")
    noise = np.random.default_rng(1).normal(size=(N, 40))  # or some would be near-duplicates
    rows = compare_heads(np.hstack([vectors, noise]), y, heads=["knn"], n_folds=2)
    assert rows[0].mean > 0.9
    other = y.replace({2**62: 2**62 + 1})
    assert evaluate(y, other)["accuracy"] == pytest.approx(2 / 3)


def test_score_missing_labels_raise_before_the_pass(extractor, vectors):
    classifier = TransferClassifier(extractor).fit(vectors, np.arange(N) % 3)
    n_forward = EmbeddingCache().info()["n_forward"]
    with pytest.raises(InputError, match="12 missing labels"):
        classifier.score(vectors + 1, ["a", None] * (N // 2))
    assert EmbeddingCache().info()["n_forward"] == n_forward


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1], r"not in classes: \[2\]"),
        (["0", "1", "2"], "not in classes"),
        ([0, 1, None], "classes has 1 missing label"),
    ],
)
def test_partial_fit_classes_without_some_labels_raise(classes, message, extractor, vectors):
    classifier = TransferClassifier(extractor, SGDClassifier())
    with pytest.raises(InputError, match=message):
        classifier.partial_fit(vectors, np.arange(N) % 3, classes)
    assert EmbeddingCache().info()["n_forward"] == 0


def test_partial_fit_new_labels_later_raise(extractor, vectors):
    classifier = TransferClassifier(extractor, SGDClassifier(random_state=0))
    classifier.partial_fit(vectors, np.arange(N) % 2, pd.array([0, 1], dtype="Int64"))
    with pytest.raises(InputError, match=r"not in the classes of the first call: \[2\]"):
        classifier.partial_fit(vectors, np.arange(N) % 3)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LogisticRegressionCV(cv=20), "folds of head__cv cannot be made: n_splits=20"),
        (
            CalibratedClassifierCV(LogisticRegression()),
            r"calibrates in 5 folds.*3 \(2\)",
        ),
        ("probe", "members in each class"),
    ],
    ids=["search", "calibration", "probe"],
)
def test_fit_rare_class_raises_before_pass(head, message, extractor, vectors):
    y = np.arange(N) % 3
    y[:2] = 3
    if head == "probe":
        head = LinearProbe(cv=20)
    with pytest.raises(InputError, match=message):
        TransferClassifier(extractor, head).fit(vectors, y)
    assert EmbeddingCache().info()["n_forward"] == 0


def test_evaluate_ids_of_two_dtypes_differ():
    y_true, y_pred = np.array(IDS, np.uint64), np.array([IDS[1], IDS[1], 7])
    result = evaluate(y_true, y_pred)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert list(result["classes"]) == ["7", str(IDS[0]), str(IDS[1])]
    assert result["confusion"]["counts"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    proba = np.eye(3)[[1, 1, 2]]
    calibrated = evaluate(y_true, y_pred, proba=proba, classes=np.array(IDS))["calibration"]
    assert calibrated["bins"][0]["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(InputError, match=r"no column for the labels \[4611686018427387905\]"):
        evaluate(y_true, y_true, proba=np.eye(2)[[0, 0, 1]], classes=np.array([IDS[0], 7]))
    with pytest.raises(InputError, match="floats beside integers above"):
        evaluate(y_true, y_pred.astype(float))


def test_score_ids_of_other_dtype_differ(vectors, extractor):
    ids = np.array(IDS * (N // 3))
    classifier = TransferClassifier(extractor, "nearest_mean").fit(vectors, ids)
    swapped = np.array([IDS[1], IDS[0], 7] * (N // 3))
    assert classifier.score(vectors, ids.astype(np.uint64)) == 1
    assert classifier.score(vectors, swapped.astype(np.uint64)) == pytest.approx(1 / 3)


def test_partial_fit_ids_of_other_dtype_differ(vectors, extractor):
    ids = np.array(IDS * (N // 3))
    classifier = TransferClassifier(extractor, SGDClassifier(random_state=0))
    for _ in range(5):
        classifier.partial_fit(vectors, ids.astype(np.uint64), classes=np.array(IDS))
    assert classifier.classes_.tolist() == sorted(IDS)
    assert classifier.score(vectors, ids) == 1
    with pytest.raises(InputError, match=r"not in the classes.*4611686018427387906"):
        classifier.partial_fit(vectors, np.full(N, IDS[1] + 1, np.uint64))


@pytest.mark.parametrize(
    ("fitted", "scored", "message"),
    [
        (
            [0, 1],
            ["0", "1"],
            r"y has labels of type str, such as '0'.*int, such as 0.*astype\(int\)",
        ),
        (
            ["0", "1"],
            [0, 1],
            r"y has labels of type int, such as 0.*str, such as '0'.*astype\(str\)",
        ),
        ([[0, 1], [1, 0]], [["0", "1"], ["1", "0"]], "y has labels of type str.*of type int"),
        ([False, True], ["no", "yes"], "y has labels of type str.*of type bool"),
    ],
)
def test_score_text_against_numbers_raises(fitted, scored, message, vectors, extractor):
    classifier = TransferClassifier(extractor).fit(vectors, fitted * (N // 2))
    with pytest.raises(InputError, match=message):
        classifier.score(vectors, scored * (N // 2))


def test_probe_score_compares_labels_of_two_types(vectors):
    ids = np.array(IDS * (N // 3))
    for probe in (KNNProbe(), LinearProbe(), NearestMeanProbe(), RidgeProbe()):
        probe.fit(vectors, ids)
        assert probe.score(vectors, ids.astype(np.uint64)) == 1
        with pytest.raises(InputError, match=r"y has labels of type str, .*classes_ of type int"):
            probe.score(vectors, ids.astype(str))


def test_evaluate_text_against_numbers_raises():
    with pytest.raises(InputError, match=r"y_true has.*str, such as 'a', and y_pred of type int"):
        evaluate(["a", "b"], [0, 1])
    with pytest.raises(InputError, match=r"y_true has.*int, such as 0, and classes of type str"):
        evaluate([0, 1], [0, 1], proba=np.eye(2), classes=["a", "b"])
