"""TransferClassifier and TransferRegressor: a frozen backbone and a head, as one estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from featx._targets import as_labels, as_values, comparable
from featx._training_data import checked_target
from featx._transfer import TransferEstimator, head_has
from featx.exceptions import InputError
from featx.heads.named import CLASSIFIER_HEADS, REGRESSOR_HEADS


class TransferClassifier(ClassifierMixin, TransferEstimator):
    """Classify images with a frozen, pretrained network and a scikit-learn head.

    The network embeds each distinct image once, and the cache keeps the embedding; after that, a
    fit takes about as long as a fit of the head alone. A linear head on frozen features is the
    linear probe of Kornblith et al. 2019 (arXiv 1805.08974).

    Parameters
    ----------
    extractor : FeatureExtractor, str, Path, keras.Model, callable or None, default=None
        Extractor of the embeddings. A backbone stands for ``FeatureExtractor(backbone)``, and None
        for ``FeatureExtractor()``.
    head : str or estimator, default="logistic"
        Classifier that is trained on the embeddings: any scikit-learn classifier, or a name:
        "logistic", "ridge", "svm" (each with scaling), "knn", "nearest_mean", "probe", "lda",
        "forest". Classifiers of CatBoost, LightGBM and XGBoost work as well. If a classifier takes
        only class indices, `head_` is a ``VotingClassifier`` of that single classifier, which
        encodes the labels.
    fine_tune : FineTune or None, default=None
        Parameters of fine-tuning, which trains the top of the backbone and starts from the fitted
        head. The validation split decides whether the head or the fine-tuned model is kept: see
        `report_`. None is no fine-tuning.
    random_state : int, RandomState or None, default=None
        Random state of fine-tuning, and of parts of the head that have none of their own. An int
        makes fine-tuning reproducible.
    verbose : int or callable, default=0
        Progress bar if it is a number other than 0. A function is called with the number of
        samples done and the total.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, in the order of the columns of ``predict_proba``. For several labels per
        sample, the `classes_` of the head.
    extractor_ : FeatureExtractor
        Fitted extractor. If a fine-tuned network was kept, the extractor of that network.
    head_ : estimator
        Fitted head. If `y` has several columns and the head supports only one output,
        scikit-learn's multi-output estimator, with one head for each column.
    report_ : Bunch
        Report of ``fit``, with the items of the ``report_`` of :class:`FeatureExtractor`;
        ``seconds`` also has ``"head"``. After fine-tuning, it also has:

        - ``kept``, "head" or "tuned": the fine-tuned model is kept if its score is better by more
          than a standard error, or if its score is no lower and its loss is better by more than a
          standard error;
        - ``head_score`` and ``tuned_score``, on the validation split;
        - ``history``, with the ``loss``, ``val_loss`` and ``val_score`` of each epoch;
          ``best_epoch``, counted from 1, or 0 for the head; ``epoch_s``, the median time of an
          epoch in seconds; ``was_interrupted``;
        - ``unfrozen``, the names of the trained layers; ``n_params_trained``, ``n_params_frozen``;
        - ``frontier``, where epochs start: "cache" (cached outputs of the last frozen layers) or
          "pixels"; ``frontier_layers``, ``frontier_bytes``, ``frontier_skipped_because``;
        - ``handover_gap``, the largest difference between the scores of the head and those of the
          network before its first step, relative to the largest score;
        - ``learning_rate`` and ``tuning_batch_size``, the values that were used;
        - ``trial``, the result of the trial of ``strategy="auto"``;
        - ``teacher``, the report of the larger model, after distillation.

    See Also
    --------
    FeatureExtractor : The extractor alone, and the parameters of backbones.
    TransferRegressor : The same for numbers instead of classes.
    FineTune : Parameters of fine-tuning.
    report : Page with scores, mistakes and suspect labels.
    save : Write the fitted estimator to a file.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    >>> images[:3] //= 4
    >>> classifier = TransferClassifier("tiny", head="ridge")
    >>> classifier.fit(images, ["dark"] * 3 + ["light"] * 3).predict(images)
    array(['dark', 'dark', 'dark', 'light', 'light', 'light'], dtype='<U5')
    """

    _heads = CLASSIFIER_HEADS

    @available_if(head_has("partial_fit"))
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Embed more samples, and continue to train the head on them.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All class labels; needed by the first call only.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the head; None is 1 for each sample.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ParameterError
            ``fine_tune`` is not None, or other parameters have faulty values.
        InputError
            `y` has a type on which no head can be trained, or `classes` is missing. This is raised
            before the pass over the samples.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import SGDClassifier
        >>> from featx import TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        >>> images[::2] //= 4
        >>> labels = ["dark", "light"]
        >>> classifier = TransferClassifier("tiny", SGDClassifier(random_state=0))
        >>> for start in (0, 2, 4):
        ...     batch = slice(start, start + 2)
        ...     classifier = classifier.partial_fit(images[batch], labels, classes=labels)
        >>> classifier.predict(images[:2])
        array(['dark', 'light'], dtype='<U5')
        """
        if classes is None and not hasattr(self, "head_"):
            raise InputError("classes must be passed on the first call to partial_fit")
        return self._partial_fit(X, y, classes=classes, sample_weight=sample_weight)

    @property
    def classes_(self) -> np.ndarray:
        """Class labels, in the order of the columns of ``predict_proba``."""
        check_is_fitted(self, "head_")
        return self.head_.classes_

    @available_if(head_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, with columns in the order of `classes_`. For several labels per sample,
            they have the form that the head returns.

        Examples
        --------
        >>> import numpy as np
        >>> from featx import TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        >>> classifier = TransferClassifier("tiny").fit(images, ["cat", "dog"] * 3)
        >>> classifier.predict_proba(images[:2]).sum(axis=1).round(3).tolist()
        [1.0, 1.0]
        """
        return self._head_output("predict_proba", X)

    @available_if(head_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict the logarithm of the probability of each class.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Natural logarithms of what :meth:`predict_proba` returns.
        """
        return self._head_output("predict_log_proba", X)

    @available_if(head_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of the classes.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Scores; the predicted class has the largest. For two classes, there is one score for
            each sample, which is above 0 for the second class.
        """
        return self._head_output("decision_function", X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; a sample with several labels is right if all its labels are right.

        Samples that cannot be read are left out, with a warning, if ``extractor__on_error`` is
        ``"nan"``.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score; None is 1 for each.

        Returns
        -------
        float
            Accuracy, from 0 to 1.

        See Also
        --------
        evaluate : Metrics of predictions, with confidence intervals.
        """
        X, y, sample_weight = self._scorable(X, y, sample_weight)
        y, predicted = comparable(y=y, predictions=self.predict(X))
        if type_of_target(y) == "multiclass-multioutput":  # accuracy_score does not support it
            is_right = (y == predicted).all(axis=1)
            return float(np.average(is_right, weights=sample_weight))
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _checked_scored(self, y: Any, n_samples: int) -> np.ndarray:
        y = super()._checked_scored(y, n_samples)
        classes = getattr(self, "classes_", y[:0])
        comparable(y=y, classes_=np.asarray(classes[0] if isinstance(classes, list) else classes))
        return y

    def _checked_target(self, y: Any, n_samples: int, *, is_all: bool = True) -> np.ndarray:
        y = checked_target(y, n_samples, convert=as_labels, owner=type(self).__name__)
        check_classification_targets(y)
        if is_all and y.ndim == 1 and len(np.unique(y)) < 2:
            raise InputError(
                f"y has one class only, {y.tolist()[0]!r}: expected samples of 2 classes or more"
            )
        return y


class TransferRegressor(RegressorMixin, TransferEstimator):
    """Predict numbers from images with a frozen, pretrained network and a scikit-learn head.

    The network embeds each distinct image once, and the cache keeps the embedding; after that, a
    fit takes about as long as a fit of the head alone. `y` has one number for each image, or
    several in columns.

    Parameters
    ----------
    extractor : FeatureExtractor, str, Path, keras.Model, callable or None, default=None
        Extractor of the embeddings. A backbone stands for ``FeatureExtractor(backbone)``, and None
        for ``FeatureExtractor()``.
    head : str or estimator, default="ridge"
        Regressor that is trained on the embeddings: any scikit-learn regressor, or a name:
        "ridge", "svm" (each with scaling), "knn", "forest".
    fine_tune : FineTune or None, default=None
        Parameters of fine-tuning, which trains the top of the backbone and starts from the fitted
        head. The validation split decides whether the head or the fine-tuned model is kept: see
        `report_`. None is no fine-tuning.
    random_state : int, RandomState or None, default=None
        Random state of fine-tuning, and of parts of the head that have none of their own. An int
        makes fine-tuning reproducible.
    verbose : int or callable, default=0
        Progress bar if it is a number other than 0. A function is called with the number of
        samples done and the total.

    Attributes
    ----------
    extractor_ : FeatureExtractor
        Fitted extractor. If a fine-tuned network was kept, the extractor of that network.
    head_ : estimator
        Fitted head. If `y` has several columns and the head supports only one output,
        scikit-learn's multi-output estimator, with one head for each column.
    report_ : Bunch
        Report of ``fit``: see :class:`TransferClassifier`.

    See Also
    --------
    FeatureExtractor : The extractor alone, and the parameters of backbones.
    TransferClassifier : The same for classes instead of numbers.
    FineTune : Parameters of fine-tuning.
    report : Page with scores and the largest errors.
    save : Write the fitted estimator to a file.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferRegressor
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    >>> regressor = TransferRegressor("tiny").fit(images, images.mean(axis=(1, 2, 3)))
    >>> regressor.predict(images).shape
    (6,)
    """

    _heads = REGRESSOR_HEADS

    def __init__(
        self,
        extractor: Any = None,
        head: Any = "ridge",
        fine_tune: Any = None,
        *,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        super().__init__(extractor, head, fine_tune, random_state=random_state, verbose=verbose)

    @available_if(head_has("partial_fit"))
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Embed more samples, and continue to train the head on them.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the head; None is 1 for each sample.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ParameterError
            ``fine_tune`` is not None, or other parameters have faulty values.
        InputError
            `y` is not valid, for example if it does not hold numbers. This is raised before the
            pass over the samples.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import SGDRegressor
        >>> from featx import TransferRegressor
        >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        >>> values = images.mean(axis=(1, 2, 3))
        >>> regressor = TransferRegressor("tiny", SGDRegressor(random_state=0))
        >>> for start in (0, 3):
        ...     batch = slice(start, start + 3)
        ...     regressor = regressor.partial_fit(images[batch], values[batch])
        >>> regressor.predict(images).shape
        (6,)
        """
        return self._partial_fit(X, y, sample_weight=sample_weight)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², the fraction of the variance of the values that is explained.

        Samples that cannot be read are left out, with a warning, if ``extractor__on_error`` is
        ``"nan"``.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score; None is 1 for each.

        Returns
        -------
        float
            R², at most 1; 0 is the score of always predicting the mean.
        """
        return super().score(*self._scorable(X, y, sample_weight))

    def _checked_target(self, y: Any, n_samples: int, *, is_all: bool = True) -> np.ndarray:
        return checked_target(y, n_samples, convert=as_values, owner=type(self).__name__)
