"""FineTune: how the top of a backbone is trained; parameters and their checks, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone

from featx._base import FeatxEstimator
from featx._validation import ParameterFaults
from featx.backbones.augment import check_augment
from featx.extractor import FeatureExtractor

OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("cosine", "one-cycle", "constant")
LOSSES = ("auto", "cross_entropy", "binary_cross_entropy", "squared_hinge", "mse", "huber")
PRECISIONS = ("float32", "bfloat16")


class FineTune(FeatxEstimator):
    """How the top of a backbone is trained with Keras, after the head was.

    Passed to :class:`TransferClassifier` and :class:`TransferRegressor` as ``fine_tune=``; its
    parameters nest: ``fine_tune__learning_rate``. Training starts exactly from the head (linear
    probing, then fine-tuning: Kumar et al. 2022, arXiv 2202.10054), or, where that is not linear,
    from a logistic regression (ridge for values) in its place. Without augmentation, what
    goes into the first unfrozen layer is computed once and kept in the cache, and an epoch trains
    only what lies above.

    Parameters
    ----------
    unfreeze : int, float or str, default=1
        What is trained: a number of blocks from the top, at most all of them; a fraction of the
        blocks, above 0 and below 1; the name of a layer, from which on everything is trained; a
        regular expression that is searched for in the names of layers; "all"; "norm" or "bias", the
        scales and offsets of normalisations, or the biases, of all layers. The command
        ``featx backbones NAME`` lists the blocks.
    epochs : int, default=10
    learning_rate : float or "find", default=1e-4
        The highest that the schedule reaches; "find" tries rising ones on some batches and takes
        a tenth of the one from which on the loss rises (Smith 2017, arXiv 1506.01186).
    optimizer : {"adamw", "adam", "sgd", "rmsprop", "adagrad"} or keras.optimizers.Optimizer, \
default="adamw"
        "sgd" has Nesterov momentum of 0.9. An optimizer object is taken as it is, with its own
        learning rate; it is copied, not changed.
    schedule : {"cosine", "one-cycle", "constant"}, default="cosine"
        How the learning rate goes after the warm-up; "one-cycle" rises for the first 30 % of all
        steps (Smith 2018, arXiv 1803.09820).
    warmup : float, default=0.1
        Share of all steps in which the learning rate rises from nothing.
    layer_decay : float, default=1.0
        Factor of the learning rate from each block to the one below it (Clark et al. 2020,
        arXiv 2003.10555).
    gradual : bool, default=False
        Whether blocks join the training one after the other, from the top (Howard and Ruder
        2018, arXiv 1801.06146).
    weight_decay : float or None, default=None
        None is the optimizer's own. Biases and normalisations are left out of it.
    label_smoothing : float, default=0.0
        Of cross-entropies.
    mixup, cutmix : float, default=0.0
        Parameter of the Beta distribution, 0 for none (Zhang et al. 2018, arXiv 1710.09412; Yun et
        al. 2019, arXiv 1905.04899). With the frontier in the cache mixup mixes activations
        (Verma et al. 2019, arXiv 1806.05236); cutmix needs pixels.
    augment : None, "standard", keras.Layer or sequence of them, default=None
        What changes images at random while they are trained on, given pixels from 0 to 255;
        "standard" flips, shifts, zooms, turns and changes contrast a little. Without `views`,
        training then starts from pixels in each epoch.
    views : int or None, default=None
        So many augmented versions of each image are made once and kept at the frontier; epochs
        train on one after the other, and cost what lies above. None makes new ones in each epoch.
    class_weight : None, "balanced" or dict, default=None
        As in scikit-learn.
    loss : {"auto", "cross_entropy", "binary_cross_entropy", "squared_hinge", "mse", "huber"}, \
default="auto"
        "auto" follows the head: cross-entropy where it has probabilities, squared hinge where it
        has scores only, mean squared error for regressors. Targets of regressors are standardised.
    batch_size : int, default=32
        Samples per step; halved, with gradients accumulated, when memory runs out.
    validation : float or cross-validator, default=0.2
        Share of the samples that is held out to choose the best epoch and to judge whether
        fine-tuning helped: whether the score, or at no lower score the loss, is better by more than
        the standard error of the difference. Stratified for classifiers, and groups never part. Or
        an object with ``split``, the first of whose splits is taken.
    patience : int or None, default=5
        Epochs after which training stops if the held-out score, or at the same score the loss,
        got no better; None never does.
    refit : bool, default=False
        Whether a fine-tuned model that is kept is trained once more on all samples, from the head
        fitted on all of them, for as many epochs as were best: it takes as long again, and small
        sets gain by it. The scores in `report_` stay those of the first training.
    ema : float or None, default=None
        Momentum of an exponential moving average of the weights, which then is what is judged and
        kept.
    clip_norm : float or None, default=None
        Largest norm of the gradients of one optimizer.
    batch_norm : {"frozen", "trained"}, default="frozen"
        Whether batch normalisations inside unfrozen blocks keep their statistics and scales.
    precision : {"float32", "bfloat16"}, default="float32"
        In which the unfrozen layers compute; weights are float32.
    frontier_dtype : {"float32", "float16"}, default="float32"
        In which activations at the frontier are stored.
    max_cache_bytes : int, default=20 GB
        If the activations at the frontier would take more, each epoch starts from pixels.
    strategy : {"always", "auto"}, default="always"
        "auto" first judges, from the learning curve of the head and a short trial, whether
        fine-tuning is worth its minutes, says so, and leaves the head alone if it is not.
    distill_to : backbone, FeatureExtractor or None, default=None
        A smaller backbone to which the knowledge of the larger one is transferred. It learns in
        equal parts from labels and from the probabilities, or values, that the head, or the
        fine-tuned model, gives the training samples (Hinton et al. 2015, arXiv 1503.02531). All of
        it is trained; the other parameters hold for both. What is kept predicts with it alone.
    temperature : float, default=2.0
        By which the scores of both are divided where there are probabilities.
    callbacks : sequence of keras.callbacks.Callback, default=()
        Told of ``loss``, ``val_loss`` and ``val_score`` in each epoch; clones share them.

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
        warmup: float = 0.1,
        layer_decay: float = 1.0,
        gradual: bool = False,
        weight_decay: float | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        augment: Any = None,
        views: int | None = None,
        class_weight: Any = None,
        loss: str = "auto",
        batch_size: int = 32,
        validation: Any = 0.2,
        patience: int | None = 5,
        refit: bool = False,
        ema: float | None = None,
        clip_norm: float | None = None,
        batch_norm: str = "frozen",
        precision: str = "float32",
        frontier_dtype: str = "float32",
        max_cache_bytes: int = 20 * 10**9,
        strategy: str = "always",
        distill_to: Any = None,
        temperature: float = 2.0,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.unfreeze = unfreeze
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.schedule = schedule
        self.warmup = warmup
        self.layer_decay = layer_decay
        self.gradual = gradual
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self.augment = augment
        self.views = views
        self.class_weight = class_weight
        self.loss = loss
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.refit = refit
        self.ema = ema
        self.clip_norm = clip_norm
        self.batch_norm = batch_norm
        self.precision = precision
        self.frontier_dtype = frontier_dtype
        self.max_cache_bytes = max_cache_bytes
        self.strategy = strategy
        self.distill_to = distill_to
        self.temperature = temperature
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
          schedule='cosin': expected one of 'cosine', 'one-cycle', 'constant'. Did you mean \
'cosine'?
        """
        faults = ParameterFaults(type(self).__name__)
        if not _is_unfreeze(self.unfreeze):
            expected = (
                "a number of blocks, a share of them between 0 and 1, a layer, a regular "
                "expression, 'all', 'norm' or 'bias'."
            )
            faults.add("unfreeze", self.unfreeze, expected)
        faults.check_positive_int("epochs", self.epochs)
        faults.check_positive_int("batch_size", self.batch_size)
        faults.check_positive_int("max_cache_bytes", self.max_cache_bytes)
        for name in ("patience", "views"):
            faults.check_positive_int(name, getattr(self, name), also=(None,))
        if self.learning_rate != "find":
            faults.check_number(
                "learning_rate", self.learning_rate, lambda rate: rate > 0, "above 0"
            )
        if isinstance(self.optimizer, str):
            faults.check_option("optimizer", self.optimizer, OPTIMIZERS)
        elif not hasattr(self.optimizer, "apply"):
            faults.add("optimizer", self.optimizer, "a name or a keras.optimizers.Optimizer.")
        faults.check_option("schedule", self.schedule, SCHEDULES)
        faults.check_option("loss", self.loss, LOSSES)
        faults.check_option("batch_norm", self.batch_norm, ("frozen", "trained"))
        faults.check_option("precision", self.precision, PRECISIONS)
        faults.check_option("frontier_dtype", self.frontier_dtype, ("float32", "float16"))
        faults.check_option("strategy", self.strategy, ("always", "auto"))
        self._check_numbers(faults)
        self._check_objects(faults)
        faults.raise_any()

    def _check_numbers(self, faults: ParameterFaults) -> None:
        for name in ("warmup", "label_smoothing"):
            faults.check_number(
                name, getattr(self, name), lambda x: 0 <= x < 1, "from 0 to below 1"
            )
        for name in ("mixup", "cutmix"):
            faults.check_number(name, getattr(self, name), lambda x: x >= 0, "0 or more")
        faults.check_number(
            "layer_decay", self.layer_decay, lambda x: 0 < x <= 1, "above 0, up to 1"
        )
        faults.check_number("temperature", self.temperature, lambda x: x > 0, "above 0")
        optional: dict[str, tuple[Callable[[float], bool], str]] = {
            "weight_decay": (lambda x: x >= 0, "0 or more, or None"),
            "clip_norm": (lambda x: x > 0, "above 0, or None"),
            "ema": (lambda x: 0 < x < 1, "between 0 and 1, or None"),
        }
        for name, (is_sound, expected) in optional.items():
            if getattr(self, name) is not None:
                faults.check_number(name, getattr(self, name), is_sound, expected)

    def _check_objects(self, faults: ParameterFaults) -> None:
        if isinstance(self.validation, (Real, str, type(None))):
            faults.check_number(
                "validation", self.validation, lambda x: 0 < x < 1, "between 0 and 1, or a splitter"
            )
        elif not hasattr(self.validation, "split"):
            faults.add("validation", self.validation, "a share or a scikit-learn splitter.")
        check_augment(self.augment, faults)
        if self.class_weight is not None and not isinstance(self.class_weight, dict):
            faults.check_option("class_weight", self.class_weight, ("balanced", None))
        if not isinstance(self.callbacks, Sequence) or isinstance(self.callbacks, str):
            faults.add("callbacks", self.callbacks, "a list of Keras callbacks.")
        if self.cutmix and (self.mixup or self.views):
            faults.add("cutmix", self.cutmix, "0 where mixup or views are used.")
        if self.views and self.augment is None:
            faults.add("views", self.views, "None where nothing is augmented.")
        if not isinstance(self.refit, (bool, np.bool_)):
            faults.add("refit", self.refit, "True or False.")
        elif self.refit and self.distill_to is not None:
            # The smaller network would be judged by samples that its teacher had learnt.
            faults.add("refit", self.refit, "False where knowledge is distilled.")
        if self.distill_to is not None:
            smaller = as_extractor(self.distill_to)
            faults.check_part(smaller.check_params, prefix="distill_to__")


def as_extractor(backbone: Any, **params: Any) -> FeatureExtractor:
    """Return the extractor that a backbone is short for; one that is passed, as a clone."""
    if isinstance(backbone, FeatureExtractor):
        return clone(backbone)
    return FeatureExtractor(backbone, **params)


def _is_unfreeze(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return int(value) >= 1 if isinstance(value, Integral) else 0 < float(value) < 1
