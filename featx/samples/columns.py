"""The columns of samples: their number and names, remembered as scikit-learn does."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from featx.samples.base import Samples, ValueSamples


def check_columns(estimator: BaseEstimator, samples: Samples, *, reset: bool) -> None:
    """Remember the columns of vectors and frames, or check that they are still the same.

    What is neither has no columns. A frame of images may be followed by a list of images.

    Parameters
    ----------
    estimator : estimator
        Gets ``n_features_in_``, and ``feature_names_in_`` from a frame.
    samples : Samples
    reset : bool
        Whether to remember or to check.

    Raises
    ------
    ValueError
        Their number or their names are others.
    """
    if reset:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    if hasattr(samples.given, "columns"):
        columns = samples.given
    elif isinstance(samples, ValueSamples):
        columns = samples.array
    else:
        return
    if reset or hasattr(estimator, "n_features_in_"):
        validate_data(estimator, columns, skip_check_array=True, reset=reset)
