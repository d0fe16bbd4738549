"""The grid of mistakes: which samples it shows, their pictures and their text."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, MistakesDisplay, TransferClassifier, TransferRegressor
from featx.exceptions import BadSampleWarning, InputError, ParameterError

PROBA = np.array([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.2, 0.8]])
Y_TRUE, Y_PRED = ["cat", "dog", "dog", "dog"], ["cat", "cat", "cat", "dog"]


@pytest.fixture
def paths(tmp_path):
    """Images of several shapes, whose names hold anything."""
    names = ["$x$.png", "two\nlines.png", "n" * 100 + ".png", "plain.png"]
    for number, name in enumerate(names):
        Image.new("RGB", (30 + 40 * number, 60), (60 * number, 0, 0)).save(tmp_path / name)
    return [str(tmp_path / name) for name in names]


def texts(display):
    display.figure_.canvas.draw()
    return [text.get_text() for text in display.ax_.texts]


def test_mistakes_are_ordered_by_loss(paths):
    display = MistakesDisplay.from_predictions(paths, Y_TRUE, Y_PRED, proba=PROBA)
    assert [each.row for each in display.mistakes] == [2, 1]
    assert [each.confidence for each in display.mistakes] == [0.99, 0.6]
    assert [each.loss for each in display.mistakes] == pytest.approx(-np.log([0.01, 0.4]))
    assert display.mistakes[0].image.getpixel((5, 5)) == (120, 0, 0)
    first, second = texts(display)
    assert first.startswith("[2] nnn")
    assert second.splitlines() == [r"[1] two\nlines.png", "true: dog", "predicted: cat (0.60)"]
    assert display.ax_.get_title() == "2 mistakes among 4 samples"


def test_mistakes_columns_follow_classes(paths):
    display = MistakesDisplay.from_predictions(
        paths, Y_TRUE, Y_PRED, proba=PROBA[:, ::-1], classes=["dog", "cat"]
    )
    assert [each.confidence for each in display.mistakes] == [0.99, 0.6]


def test_mistakes_without_probabilities_keep_order(paths):
    display = MistakesDisplay.from_predictions(paths, Y_TRUE, Y_PRED, n_images=1)
    assert [(each.row, each.loss) for each in display.mistakes] == [(1, None)]
    assert display.ax_.get_title() == "2 mistakes among 4 samples; 1 shown"
    assert texts(display)[0].splitlines()[-1] == "predicted: cat"


def test_mistakes_of_classifier_are_found(images, labels):
    classifier = TransferClassifier("tiny").fit(images, labels)
    wrong = labels.copy()
    wrong[3] = "light"
    display = MistakesDisplay.from_estimator(classifier, images, wrong)
    assert [(each.row, each.predicted) for each in display.mistakes] == [(3, "dark")]
    assert MistakesDisplay.from_estimator(classifier, images, labels).n_mistakes == 0


def test_mistakes_leave_unread_samples_out(images, labels):
    classifier = TransferClassifier(FeatureExtractor("tiny", on_error="nan")).fit(images, labels)
    samples, wrong = ["gone.png", *images[:6]], ["dark", *np.roll(labels[:6], 1)]
    with pytest.warns(BadSampleWarning):
        display = MistakesDisplay.from_estimator(classifier, samples, wrong)
    assert (display.n_mistakes, display.n_samples) == (6, 6)
    assert {each.row for each in display.mistakes} == {1, 2, 3, 4, 5, 6}
    by_row = {each.row: each.true for each in display.mistakes}
    assert [by_row[row] for row in range(1, 7)] == wrong[1:]
    with pytest.raises(InputError, match="X has 7 samples and y has 6"):
        MistakesDisplay.from_estimator(classifier, samples, wrong[1:])


def test_mistakes_of_pipeline_are_found(images, labels):
    pipeline = make_pipeline(FeatureExtractor("tiny"), LogisticRegression()).fit(images, labels)
    display = MistakesDisplay.from_estimator(pipeline, images, np.roll(labels, 1), n_images=2)
    assert (display.n_mistakes, len(display.mistakes)) == (20, 2)
    assert display.mistakes[0].confidence > 0.5


def test_mistakes_of_regressor_have_largest_error(images):
    values = images.mean(axis=(1, 2, 3))
    regressor = TransferRegressor("tiny").fit(images, values)
    values[4] += 1000
    display = MistakesDisplay.from_estimator(regressor, images, values, n_images=3)
    assert display.mistakes[0].row == 4
    assert display.mistakes[0].loss == pytest.approx(1000, rel=0.1)
    assert display.ax_.get_title() == "20 samples; 3 with the largest errors"


def test_mistakes_unread_picture_has_reason(paths):
    display = MistakesDisplay.from_predictions([*paths[:3], "gone.png"], Y_TRUE, Y_PRED[::-1])
    assert display.mistakes[-1].fault == "no such file"
    shown = display.axes_[-1].texts[0].get_text()
    assert shown.replace("\n", " ") == "cannot be read: no such file"


def test_mistakes_fit_into_given_axes(paths):
    _, axes = plt.subplots(1, 2)
    display = MistakesDisplay.from_predictions(paths, Y_TRUE, Y_PRED, ax=axes[1])
    assert (display.ax_, len(display.axes_)) == (axes[1], 2)
    assert not axes[0].child_axes


@pytest.mark.parametrize(
    ("y_true", "y_pred", "proba", "message"),
    [
        (Y_TRUE[:3], Y_PRED[:3], None, "X has 4 samples and y has 3"),
        (Y_TRUE, [[0, 1]] * 4, None, "one label for each sample"),
        ([[0, 1]] * 4, [[0, 1]] * 4, [PROBA, PROBA], "one label for each sample"),
        ([[0.5, 1]] * 4, [[0.5, 1]] * 4, None, "y_true has shape .*one value for each sample"),
        (Y_TRUE, Y_PRED, PROBA[:, :1], "a column for each of the 2 classes"),
    ],
)
def test_mistakes_faulty_predictions_raise(y_true, y_pred, proba, message, paths):
    with pytest.raises(InputError, match=message):
        MistakesDisplay.from_predictions(paths, y_true, y_pred, proba=proba)


def test_mistakes_vectors_raise():
    with pytest.raises(InputError, match="not images"):
        MistakesDisplay.from_predictions(np.eye(4), Y_TRUE, Y_PRED)


def test_mistakes_without_room_raise(paths):
    with pytest.raises(ParameterError, match="n_images=0: expected a positive integer"):
        MistakesDisplay.from_predictions(paths, Y_TRUE, Y_PRED, n_images=0)
