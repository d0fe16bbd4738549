"""TransferEstimator, base of TransferClassifier and TransferRegressor: an extractor and a head."""

from __future__ import annotations

import copy
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from featx._base import FeatxEstimator, FitTask, with_callbacks
from featx._extractor_validation import check_verbose
from featx._facts import estimator_facts
from featx._targets import as_groups, as_weights
from featx._training_data import (
    Data,
    check_known,
    checked_classes,
    checked_weights,
    draw_seed,
    readable_mask,
    rows_that_were_read,
    training_views,
    views_of,
)
from featx._validation import InputFaults, ParameterFaults
from featx.exceptions import InputError, ParameterError
from featx.export import export, to_keras
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.heads.fit import as_head_input, fit_on_views, predict, train_further, views_as_rows
from featx.heads.folds import check_keeps_samples_together
from featx.heads.named import (
    check_head_params,
    find_head,
    head_for_labels,
    head_for_outputs,
    make_head,
    seed_head,
)
from featx.inputs.recognize import as_samples

if TYPE_CHECKING:
    import keras


class TransferParams(FeatxEstimator, ABC):
    """Parameters of classifier and regressor, and of an extractor or head given by name."""

    _heads: dict[str, Callable[[], BaseEstimator]]

    def __init__(
        self,
        extractor: Any = None,
        head: Any = "logistic",
        fine_tune: Any = None,
        *,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.extractor = extractor
        self.head = head
        self.fine_tune = fine_tune
        self.random_state = random_state
        self.verbose = verbose

    def check_params(self) -> None:
        """Check the parameters, those of extractor and head too, as `fit` does first.

        Raises
        ------
        ParameterError
            Some have faulty values; the message lists all of them.
        """
        faults = ParameterFaults(type(self).__name__)
        extractor = self._named_extractor() or self.extractor
        if isinstance(extractor, FeatureExtractor):
            faults.check_part(extractor.check_params, prefix="extractor__")
        else:
            faults.add("extractor", extractor, "a FeatureExtractor, a backbone or None.")
        faults.check_part(lambda: check_head_params(find_head(self.head, self._heads)))
        try:
            check_random_state(self.random_state)
        except ValueError:
            faults.add("random_state", self.random_state, "an integer, a RandomState or None.")
        check_verbose(self.verbose, faults)
        if isinstance(self.fine_tune, FineTune):
            faults.check_part(self.fine_tune.check_params, prefix="fine_tune__")
            if self.fine_tune.distill_to is not None:
                faults.check_part(lambda: _check_teacher(make_head(self.head, self._heads)))
        elif self.fine_tune is not None:
            faults.add("fine_tune", self.fine_tune, "a FineTune, or None.")
        if self.fine_tune is not None and getattr(extractor, "views", 1) != 1:
            faults.add("extractor__views", extractor.views, "1 with fine_tune, which has `views`.")
        if self.fine_tune is not None and getattr(extractor, "augment", None) is not None:
            expected = "None with fine_tune, which has `augment`."
            faults.add("extractor__augment", extractor.augment, expected)
        faults.raise_any()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of an extractor or head given by name included.

        Parameters
        ----------
        deep : bool, default=True
            True if the parameters of the extractor and the head are returned too.

        Returns
        -------
        dict
        """
        params = super().get_params(deep)
        if deep:
            parts = {"extractor": self._named_extractor(), "head": self._named_head()}
            for prefix, part in parts.items():
                if part is not None:
                    inner = part.get_params()
                    params |= {f"{prefix}__{name}": value for name, value in inner.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; a nested one replaces the name of an extractor or head by the object.

        ``head__C`` reaches the classifier of a head that is a pipeline with scaling. Keyword
        parameters of heads of other libraries can be set as well, such as
        ``head__feature_fraction`` of LightGBM.
        Other names are an error, as in :meth:`FeatureExtractor.set_params`.
        """
        changed = copy.copy(self)
        for part in {"extractor", "head", "fine_tune"} & params.keys():
            setattr(changed, part, params.pop(part))
        nested = {name.partition("__")[0] for name in params if "__" in name}
        if "extractor" in nested:
            changed.extractor = changed._named_extractor() or changed.extractor
        if "head" in nested and isinstance(changed.head, str):
            changed.head = make_head(changed.head, self._heads)
        if "fine_tune" in nested and changed.fine_tune is None:
            names = ", ".join(name for name in params if name.startswith("fine_tune__"))
            raise ParameterError(f"{names} cannot be set while fine_tune=None: pass a FineTune too")
        known = changed.get_params()
        short = changed._short_names(known)
        full = {name: changed._full_name(name, known) for name in params}
        listed = [name for name in params if not _accepts_more_params(full[name], known)]
        self._check_param_names(listed, [*short, *known])
        BaseEstimator.set_params(changed, **{full[name]: value for name, value in params.items()})
        self.__dict__.update(vars(changed))
        return self

    def _short_names(self, known: Collection[str]) -> list[str]:
        """Return the short names of parameters of the last step of a head that is a pipeline."""
        if not isinstance(self.head, Pipeline):
            return []
        of_last = f"head__{self.head.steps[-1][0]}__"
        names = (f"head__{name.removeprefix(of_last)}" for name in known if of_last in name)
        return [name for name in names if self._full_name(name, known) != name]

    def _full_name(self, name: str, known: Collection[str]) -> str:
        """Return the full name of a parameter, which may be of the last step of a pipeline."""
        part, _, inner = name.partition("__")
        own = f"head__{inner.partition('__')[0]}"
        if part != "head" or not inner or not isinstance(self.head, Pipeline) or own in known:
            return name
        return f"head__{self.head.steps[-1][0]}__{inner}"

    def _named_extractor(self) -> FeatureExtractor | None:
        """Return the extractor of a backbone or of None; None if `extractor` is an extractor."""
        if hasattr(self.extractor, "get_params"):
            return None
        return FeatureExtractor() if self.extractor is None else FeatureExtractor(self.extractor)

    def _named_head(self) -> BaseEstimator | None:
        known = isinstance(self.head, str) and self.head in self._heads
        return self._heads[self.head]() if known else None

    def new_head(self, y: np.ndarray | None = None) -> BaseEstimator:
        """Return the unfitted head that `fit` trains on `y`."""
        head = make_head(self.head, self._heads)
        seed_head(head, self.random_state)
        return head if y is None else head_for_outputs(head_for_labels(head, y), y)

    def _new_extractor(self) -> FeatureExtractor:
        """Return the unfitted extractor that `fit` fits."""
        extractor = self._named_extractor() or clone(self.extractor)
        if self.verbose:
            extractor.set_params(verbose=self.verbose)
        return extractor


def _check_teacher(head: BaseEstimator) -> None:
    """Raise a ParameterError if the predictions of a head cannot be distilled."""
    if is_classifier(head) and not hasattr(head, "predict_proba"):
        raise ParameterError(
            f"fine_tune__distill_to needs a head with probabilities, but {head} has none: pass "
            "head='logistic', for example"
        )


def _accepts_more_params(name: str, known: Mapping[str, Any]) -> bool:
    """Return True for a parameter of an estimator that accepts more parameters than it lists.

    Estimators of CatBoost, LightGBM, XGBoost and skorch accept many keywords, and their own
    ``set_params`` checks the names.
    """
    parts = name.split("__")
    prefixes = ("__".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    owners = (known[prefix] for prefix in prefixes if hasattr(known.get(prefix), "set_params"))
    owner = next((each for each in owners if not isinstance(each, type)), None)
    if owner is None:
        return False
    return not str(type(owner).set_params.__module__).startswith(("sklearn.", "featx."))


def head_has(method: str) -> Callable[[Any], bool]:
    """Return a check that the head has a method, for ``available_if``."""

    def check(estimator: Any) -> bool:
        try:
            head = getattr(estimator, "head_", None) or estimator.new_head()
        except ParameterError:
            return False
        getattr(head, method)
        return True

    return check


class TransferEstimator(TransformerMixin, TransferParams):
    """An extractor and a head as one estimator."""

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Embed the samples, train the head on the embeddings, and fine-tune if `fine_tune` is set.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the head and for fine-tuning.
        groups : array-like of shape (n_samples,), default=None
            Groups of samples that stay together where fine-tuning holds samples out, or where a
            head cross-validates (with a number of folds, or a splitter that takes groups).

        Returns
        -------
        self

        Raises
        ------
        ParameterError, InputError
            Parameters or inputs are faulty; raised before anything is computed. See also
            :meth:`FeatureExtractor.fit`.
        BadSampleError
            Some samples cannot be read.
        """
        self.check_params()
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples)
        head = self.new_head(y)
        if sample_weight is not None:
            sample_weight = faults.check(checked_weights, sample_weight, head, n_samples)
        if groups is not None:
            groups = faults.check(as_groups, groups, n_samples)
        faults.raise_any()
        extractor = self._new_extractor()
        check_keeps_samples_together(head, y, groups, n_views=extractor.views)
        data = Data(samples, y, sample_weight, groups)
        n_parts = 2 if self.fine_tune is None else 1
        with self._fit_task(samples.given, y, n_parts=n_parts) as task:
            if self.fine_tune is None:
                self._fit_head(extractor, head, data, task)
            else:
                with task.part("fine-tune"):
                    self._fine_tune(extractor, data)
        self._set_column_names()
        return self

    def _fit_head(
        self, extractor: FeatureExtractor, head: BaseEstimator, data: Data, task: FitTask
    ) -> None:
        with task.part("embed", extractor):
            views = training_views(extractor, data.X)
        kept = rows_that_were_read(views)
        if not kept.all():
            views, data = views[kept], data.take(np.flatnonzero(kept))
        start_s = time.perf_counter()
        with task.part("fit-head", head):
            fit_on_views(head, views, data.y, sample_weight=data.sample_weight, groups=data.groups)
        self.extractor_, self.head_ = extractor, head
        self._report_head(time.perf_counter() - start_s)

    def _report_head(self, head_s: float) -> None:
        report = self.extractor_.report_
        self.report_ = Bunch(**{**report, "seconds": {**report.seconds, "head": head_s}})

    def _fine_tune(self, extractor: FeatureExtractor, data: Data) -> None:
        # Imported here, since these modules load Keras. The seed is drawn before, since TensorFlow
        # draws from NumPy's global generator when it is imported (2026-11).
        args = self.fine_tune, extractor, partial(self.new_head, data.y), data
        state, verbose = self.random_state, self.verbose
        if self.fine_tune.distill_to is None:
            seed = draw_seed(state)
            from featx.finetune.run import fine_tune

            outcome = fine_tune(*args, seed=seed, is_seeded=state is not None, verbose=verbose)
        else:
            from featx.finetune.distill import distill

            outcome = distill(*args, random_state=state, verbose=verbose)
        self.extractor_, self.head_ = outcome.extractor, outcome.head
        self.report_ = Bunch(**outcome.report)

    def _set_column_names(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.extractor_, name):
                setattr(self, name, getattr(self.extractor_, name))

    def _partial_fit(self, X: Any, y: Any, **params: Any) -> Self:
        """Embed more samples, and pass them and `params` to ``partial_fit`` of the head."""
        self.check_params()
        if self.fine_tune is not None:
            raise ParameterError("partial_fit trains the head only: pass fine_tune=None")
        samples = as_samples(X)
        is_first = not hasattr(self, "head_")
        y, head, params = self._checked_batch(y, len(samples), params)
        extractor = self._new_extractor().fit(samples) if is_first else self.extractor_
        views = views_of(extractor, samples)
        kept = rows_that_were_read(views)
        if "sample_weight" in params:
            params["sample_weight"] = np.repeat(params["sample_weight"][kept], views.shape[1])
        start_s = time.perf_counter()
        rows, labels = views_as_rows(views[kept], y[kept])
        train_further(head, rows, labels, **params)
        self.extractor_, self.head_ = extractor, head
        self._report_head(time.perf_counter() - start_s)
        self._set_column_names()
        return self

    def _checked_batch(
        self, y: Any, n_samples: int, params: dict[str, Any]
    ) -> tuple[np.ndarray, BaseEstimator, dict[str, Any]]:
        """Return checked labels or values, the head to train on them, and checked parameters."""
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples, is_all=False)
        head = self.head_ if hasattr(self, "head_") else self.new_head(y)
        params = {name: value for name, value in params.items() if value is not None}
        if "sample_weight" in params:
            given = params["sample_weight"]
            params["sample_weight"] = faults.check(checked_weights, given, head, n_samples)
        known: Any = getattr(head, "classes_", None)
        if y is not None and y.ndim == 1 and "classes" in params:
            known = params["classes"] = faults.check(checked_classes, params["classes"], y)
        elif y is not None and y.ndim == 1 and known is not None:
            faults.check(check_known, y, known, source="the classes of the first call")
        faults.raise_any()
        if y.ndim == 1 and {y.dtype.kind, getattr(known, "dtype", y.dtype).kind} == {"i", "u"}:
            y = y.astype(known.dtype)  # NumPy searches uint64 in int64 as floats
        return y, head, params

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels or values.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._head_output("predict", X)

    @available_if(head_has("score_samples"))
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the scores of the head's ``score_samples``, such as log-likelihoods.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._head_output("score_samples", X)

    def transform(self, X: Any) -> np.ndarray:
        """Return the embeddings from which the head predicts: the mean over augmented views.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
        """
        check_is_fitted(self, "head_")
        return self.extractor_.transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features of :meth:`transform`.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (n_features,), dtype object
        """
        check_is_fitted(self, "head_")
        return self.extractor_.get_feature_names_out()

    def to_keras(self) -> keras.Model:
        """Return the fitted estimator as one Keras model without featx and scikit-learn.

        Returns
        -------
        keras.Model
            Model from uint8 pixels (n, h, w, c) of the backbone's size to float32 probabilities
            (n, n_classes), to scores if the head has no probabilities, or to values. Its layers are
            copies, which may be trained. The model of a classifier has ``class_names``. It does not
            average augmented views.

        Raises
        ------
        ParameterError
            The head is not linear.
        BackboneError
            The backbone cannot be copied, or changed after `fit`.
        """
        check_is_fitted(self, "head_")
        return to_keras(self.extractor_, self.head_)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "keras",
        include_resize: bool = False,
    ) -> None:
        """Write the fitted estimator for a runtime without featx.

        Parameters
        ----------
        path : str or Path
            Folder of a SavedModel, else a file ``.keras``, ``.onnx``, ``.xml`` (OpenVINO, with a
            second file ``.bin``) or ``.tflite``. Existing regular files, or a folder that holds
            only a SavedModel, are replaced once the new ones are complete; permissions are kept.
        format : {"keras", "saved_model", "onnx", "openvino", "litert"}, default="keras"
            Format of the file. All but "keras" need Keras to run on TensorFlow. The file holds the
            class names and the settings for full float32 precision, which OpenVINO needs on CPUs
            with bfloat16: ``{"EXECUTION_MODE_HINT": "ACCURACY"}``. It also describes the inputs:
            their size and range, and how images get that size. ``featx/export.py`` describes where
            the file holds all this.
        include_resize : bool, default=False
            If True, the model takes uint8 images (n, height, width, c) of any size, all of one size
            in a batch, and resizes them itself, as the extractor's `resize` does: 0.5% of the
            values differ, by one level of 255. If False, images have to be resized before.

        Raises
        ------
        ParameterError
            The format is not known, the path does not suit it, the head is not linear, or images
            cannot be resized.
        MissingExtraError
            Packages that write the format are not installed.
        EngineError
            The format cannot hold the network.
        OSError
            The disk is full or the folder is read-only, for example; existing files are unharmed.
        """
        check_is_fitted(self, "head_")
        export(self.extractor_, self.head_, path, format=format, include_resize=include_resize)

    @abstractmethod
    def _checked_target(self, y: Any, n_samples: int, *, is_all: bool = True) -> np.ndarray:
        """Return labels or values; raise if no head can be trained on them.

        `is_all` is True if no further samples will follow.
        """

    def _head_output(self, method: str, X: Any) -> np.ndarray:
        check_is_fitted(self, "head_")
        embeddings = np.asarray(self.extractor_.transform(X))
        unread = np.flatnonzero(~readable_mask(embeddings))
        if len(unread):
            raise InputError(
                f"{len(unread)} of {len(embeddings)} samples could not be read (rows "
                f"{unread[:10].tolist()}), and there is no prediction for them: leave them out"
            )
        call = partial(predict, self.head_) if method == "predict" else getattr(self.head_, method)
        return call(as_head_input(embeddings))

    def _checked_scored(self, y: Any, n_samples: int) -> np.ndarray:
        """Return the labels or values to compare with predictions."""
        return self._checked_target(y, n_samples, is_all=False)

    def _scorable(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Check labels and weights; leave out unreadable samples with ``on_error="nan"``."""
        check_is_fitted(self, "head_")
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_scored, y, n_samples)
        if sample_weight is not None:
            sample_weight = faults.check(as_weights, sample_weight, n_samples)
        faults.raise_any()
        self.extractor_.check_params()  # `transform` does not check them for ready samples
        if self.extractor_.on_error == "raise":
            return samples, y, sample_weight
        embeddings = np.asarray(self.extractor_.transform(samples))
        kept = rows_that_were_read(embeddings)
        if kept.all():
            return samples, y, sample_weight
        weights = None if sample_weight is None else sample_weight[kept]
        return samples.take(np.flatnonzero(kept)), y[kept], weights

    def _facts(self) -> list[tuple[str, str]]:
        extractor = getattr(self, "extractor_", None) or self._named_extractor() or self.extractor
        return estimator_facts(self, extractor)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = FeatureExtractor().__sklearn_tags__().input_tags
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
