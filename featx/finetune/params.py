"""FineTune: the parameters of fine-tuning and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone

from featx._base import FeatxEstimator
from featx._validation import ParameterFaults, has_methods
from featx.backbones.augment import check_augment
from featx.extractor import FeatureExtractor

_OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop", "adagrad")
_SCHEDULES = ("cosine", "one-cycle", "constant")
_LOSSES = ("auto", "cross_entropy", "binary_cross_entropy", "squared_hinge", "mse", "huber")


class FineTune(FeatxEstimator):
    """Parameters of fine-tuning, which trains the top of a backbone with Keras after the head.

    Pass it to :class:`TransferClassifier` or :class:`TransferRegressor` as ``fine_tune=``; a
    search can set its parameters as ``fine_tune__learning_rate`` and so on. Training starts from
    exactly the fitted head (linear probing, then fine-tuning: Kumar et al. 2022, arXiv
    2202.10054), or from a logistic or ridge regression if the head is not linear. Without
    augmentation, the inputs of the first unfrozen layer are computed once and kept in the cache,
    and an epoch runs only the layers above.

    Parameters
    ----------
    unfreeze : int, float or str, default=1
        Part of the backbone that is trained: a number of blocks from the top; a fraction of the
        blocks, above 0 and below 1; the name of the lowest trained layer or block, as `layer`
        takes it ("conv5_block3_out", "encoder:3"); a regular expression that is searched for in
        the names of layers; "all"; "norm", the scales and offsets of all normalizations; or
        "bias", the biases of all layers. The command ``featx backbones NAME`` lists the blocks.
    epochs : int, default=10
        Largest number of epochs.
    learning_rate : float or "find", default=1e-4
        Highest learning rate of the schedule. "find" tries rising rates on some batches, and uses
        a tenth of the rate with the lowest loss (Smith 2017, arXiv 1506.01186).
    optimizer : {"adamw", "adam", "sgd", "rmsprop", "adagrad"} or keras.optimizers.Optimizer, \
default="adamw"
        Name of an optimizer, or an optimizer object, which is copied. "sgd" has a Nesterov
        momentum of 0.9. The learning rate of an object replaces `learning_rate`; if it is a Keras
        schedule, it also replaces `schedule`. Weight decay does not apply to biases and
        normalizations.
    schedule : {"cosine", "one-cycle", "constant"}, default="cosine"
        Course of the learning rate. It rises during the first 10% of all steps, or 30% with
        "one-cycle" (Smith 2018, arXiv 1803.09820).
    layer_decay : float, default=1.0
        Factor by which the learning rate of each block is multiplied for the block below it (Clark
        et al. 2020, arXiv 2003.10555).
    label_smoothing : float, default=0.0
        Label smoothing for cross-entropy losses, from 0 to below 1.
    mixup : float, default=0.0
        Parameter of the Beta distribution of mixup; 0 is no mixup (Zhang et al. 2018, arXiv
        1710.09412). If training starts from cached activations, these are mixed (Verma et al.
        2019, arXiv 1806.05236).
    augment : None, "standard", keras.Layer or sequence of them, default=None
        Keras layers that randomly change the training images, with pixels from 0 to 255.
        "standard" flips, shifts, zooms and rotates images and changes their contrast a little.
        Each epoch then starts from pixels, unless `views` is set.
    views : int or None, default=None
        Number of augmented views of each image whose activations are kept in the cache. Each epoch
        uses the next view, and runs only the unfrozen layers. With None, each epoch makes new
        views.
    class_weight : None, "balanced" or dict, default=None
        Weights of the classes, as in scikit-learn.
    loss : {"auto", "cross_entropy", "binary_cross_entropy", "squared_hinge", "mse", "huber"}, \
default="auto"
        Loss that is minimized. "auto" depends on the head: cross-entropy if it has probabilities,
        squared hinge if it has only scores, and mean squared error for regressors, whose targets
        are standardized.
    batch_size : int, default=32
        Number of samples per step. If memory runs out, batches are halved and their gradients
        accumulated.
    validation : float or cross-validator, default=0.2
        Fraction of the samples that is held out to select the best epoch, and to decide between
        the head and the fine-tuned model. The fine-tuned model is kept if its score is better by
        more than the standard error of the difference; for classifiers, also if its score is no
        lower and its loss is better by more than that and by 1% or more. The split is stratified
        for classifiers, and keeps groups together. If a cross-validator is passed, its first split
        is used.
    patience : int or None, default=5
        Number of epochs after which training stops if there was no better validation score, or a
        lower loss at the same score. With None, training never stops early.
    refit : bool, default=False
        True if a fine-tuned model that is kept is trained again on all samples, from a head fitted
        on all of them, up to the best epoch. This takes about as long as the first training, and
        helps if there are few samples. The scores in `report_` are those of the first training.
    batch_norm : {"frozen", "trained"}, default="frozen"
        Treatment of batch normalizations in unfrozen blocks. "frozen" keeps their statistics and
        scales unchanged.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision in which the unfrozen layers compute; their weights are always float32.
    max_cache_bytes : int, default=20 GB
        Largest size of the cached activations, in bytes. If they are larger, each epoch starts
        from pixels.
    strategy : {"always", "auto"}, default="always"
        Condition for fine-tuning. With "auto", a trial first trains for a few epochs on at most
        1,000 samples. If that improves neither the validation score nor the loss by 2%, the head
        is kept. `report_.trial` has the result, with the learning curve of the head and the
        estimated time.
    distill_to : backbone, FeatureExtractor or None, default=None
        Smaller backbone to train by distillation (Hinton et al. 2015, arXiv 1503.02531). All its
        layers are trained, half on the labels, and half on the predictions of the larger model for
        the training samples: probabilities at temperature 2, or values. The other parameters apply
        to both trainings. The estimator then predicts with the smaller backbone alone.
    callbacks : sequence of keras.callbacks.Callback, default=()
        Callbacks that get the ``loss``, ``val_loss`` and ``val_score`` of each epoch. Clones of
        the estimator share the callbacks.

    See Also
    --------
    TransferClassifier : Estimator that is fine-tuned, for classes.
    TransferRegressor : Estimator that is fine-tuned, for numbers.
    TuningHistoryDisplay : Plot of losses and scores by epoch.

    Notes
    -----
    Weight decay, gradient clipping, averaged weights and momentum are options of the optimizer. If
    it averages weights, the averages are evaluated and kept::

        from keras.optimizers import SGD, AdamW

        FineTune(optimizer=AdamW(1e-4, weight_decay=0.05))
        FineTune(optimizer=AdamW(1e-4, global_clipnorm=1.0))
        FineTune(optimizer=AdamW(1e-4, use_ema=True, ema_momentum=0.99))
        FineTune(optimizer=SGD(1e-3, momentum=0.9))

    For a longer warm-up, give the optimizer a Keras schedule, such as ``CosineDecay(0.0, n_steps,
    warmup_target=1e-4, warmup_steps=200)``. To unfreeze blocks gradually (Howard and Ruder 2018,
    arXiv 1801.06146), fit repeatedly, each time from the backbone that the last fit trained::

        first = TransferClassifier("tiny", fine_tune=FineTune(1)).fit(X, y)
        TransferClassifier(first.extractor_, fine_tune=FineTune(2)).fit(X, y)

    Examples
    --------
    >>> import numpy as np
    >>> from featx import FineTune, TransferClassifier
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> classifier = TransferClassifier("tiny", fine_tune=FineTune(epochs=1), random_state=0)
    >>> classifier = classifier.fit(images, np.arange(20) % 2)
    >>> classifier.report_.kept in ("head", "tuned"), classifier.report_.frontier
    (True, 'cache')
    """

    def __init__(
        self,
        unfreeze: int | float | str = 1,
        *,
        epochs: int = 10,
        learning_rate: float | str = 1e-4,
        optimizer: Any = "adamw",
        schedule: str = "cosine",
        layer_decay: float = 1.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        augment: Any = None,
        views: int | None = None,
        class_weight: Any = None,
        loss: str = "auto",
        batch_size: int = 32,
        validation: Any = 0.2,
        patience: int | None = 5,
        refit: bool = False,
        batch_norm: str = "frozen",
        precision: str = "float32",
        max_cache_bytes: int = 20 * 10**9,
        strategy: str = "always",
        distill_to: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.unfreeze = unfreeze
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.schedule = schedule
        self.layer_decay = layer_decay
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.augment = augment
        self.views = views
        self.class_weight = class_weight
        self.loss = loss
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.refit = refit
        self.batch_norm = batch_norm
        self.precision = precision
        self.max_cache_bytes = max_cache_bytes
        self.strategy = strategy
        self.distill_to = distill_to
        self.callbacks = callbacks

    def check_params(self) -> None:
        """Check the parameters, as `fit` does before anything else.

        Raises
        ------
        ParameterError
            Some have faulty values; the message lists all of them.

        Examples
        --------
        >>> FineTune(epochs=0, schedule="cosin").check_params()
        Traceback (most recent call last):
            ...
        featx.exceptions.ParameterError: FineTune has 2 faulty parameters:
          epochs=0: expected a positive integer.
          schedule='cosin': expected one of 'cosine', ... Did you mean 'cosine'?
        """
        faults = ParameterFaults(type(self).__name__)
        if not _is_valid_unfreeze(self.unfreeze):
            expected = (
                "a number of blocks, a fraction of them between 0 and 1, a layer, a regular "
                "expression, 'all', 'norm' or 'bias'."
            )
            faults.add("unfreeze", self.unfreeze, expected)
        for name in ("epochs", "batch_size", "max_cache_bytes"):
            faults.check_positive_int(name, getattr(self, name))
        for name in ("patience", "views"):
            faults.check_positive_int(name, getattr(self, name), also=(None,))
        faults.check_option("schedule", self.schedule, _SCHEDULES)
        faults.check_option("loss", self.loss, _LOSSES)
        faults.check_option("batch_norm", self.batch_norm, ("frozen", "trained"))
        faults.check_option("precision", self.precision, ("float32", "bfloat16"))
        faults.check_option("strategy", self.strategy, ("always", "auto"))
        self._check_numbers(faults)
        self._check_optimizer(faults)
        self._check_objects(faults)
        faults.raise_any()

    def _check_numbers(self, faults: ParameterFaults) -> None:
        if not (isinstance(self.learning_rate, str) and self.learning_rate == "find"):
            faults.check_number("learning_rate", self.learning_rate, lambda x: x > 0, "above 0")
        smoothing, decay = self.label_smoothing, self.layer_decay
        faults.check_number("label_smoothing", smoothing, lambda x: 0 <= x < 1, "from 0 to below 1")
        faults.check_number("mixup", self.mixup, lambda x: x >= 0, "0 or more")
        faults.check_number("layer_decay", decay, lambda x: 0 < x <= 1, "above 0, up to 1")

    def _check_optimizer(self, faults: ParameterFaults) -> None:
        if isinstance(self.optimizer, str):
            faults.check_option("optimizer", self.optimizer, _OPTIMIZERS)
        elif not has_methods(self.optimizer, "apply", "get_config"):
            faults.add("optimizer", self.optimizer, "a name or a keras.optimizers.Optimizer.")
        else:
            if isinstance(self.learning_rate, str) and self.learning_rate == "find":
                expected = "a number with an optimizer object, whose own learning rate is used."
                faults.add("learning_rate", self.learning_rate, expected)
            if self.layer_decay != 1 and own_learning_rate(self.optimizer) is None:
                expected = "1 with an optimizer that has a schedule."
                faults.add("layer_decay", self.layer_decay, expected)

    def _check_objects(self, faults: ParameterFaults) -> None:
        if isinstance(self.validation, (Real, str, bytes, type(None))):
            faults.check_number(
                "validation", self.validation, lambda x: 0 < x < 1, "between 0 and 1, or a splitter"
            )
        elif not has_methods(self.validation, "split"):
            faults.add("validation", self.validation, "a fraction or a scikit-learn splitter.")
        check_augment(self.augment, faults)
        if not isinstance(self.class_weight, dict):
            faults.check_option("class_weight", self.class_weight, ("balanced", None))
        else:
            for weight in self.class_weight.values():
                faults.check_number("class_weight", weight, lambda x: x >= 0, "0 or more by class")
        is_list = isinstance(self.callbacks, Sequence) and not isinstance(self.callbacks, str)
        if not is_list or not all(has_methods(each, "set_model") for each in self.callbacks):
            faults.add("callbacks", self.callbacks, "a list of Keras callbacks.")
        if isinstance(self.views, Integral) and self.views and self.augment is None:
            faults.add("views", self.views, "None with augment=None.")
        if not isinstance(self.refit, (bool, np.bool_)):
            faults.add("refit", self.refit, "True or False.")
        elif self.refit and self.distill_to is not None:
            # The validation samples of the smaller network would be training data of its teacher.
            faults.add("refit", self.refit, "False with distill_to.")
        if self.distill_to is not None:
            smaller = as_extractor(self.distill_to)
            faults.check_part(smaller.check_params, prefix="distill_to__")


def as_extractor(backbone: Any, **params: Any) -> FeatureExtractor:
    """Return a new extractor of a backbone, or a clone of an extractor."""
    if isinstance(backbone, FeatureExtractor):
        return clone(backbone)
    return FeatureExtractor(backbone, **params)


def own_learning_rate(optimizer: Any) -> float | None:
    """Return the learning rate of an optimizer object; None if it follows a schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return float(rate) if isinstance(rate, Real) else None


def _is_valid_unfreeze(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return int(value) >= 1 if isinstance(value, Integral) else 0 < float(value) < 1
