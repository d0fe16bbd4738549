"""TransferParams, base of TransferEstimator: parameters, those of parts given by name included."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from featx._base import FeatxEstimator
from featx._extractor_validation import check_verbose
from featx._validation import ParameterFaults
from featx.exceptions import ParameterError
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.heads.named import (
    check_head_params,
    find_head,
    head_for_labels,
    head_for_outputs,
    make_head,
    seed_head,
)


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
        """Check the parameters, those of extractor and head included, as `fit` does first.

        Raises
        ------
        ParameterError
            Some have faulty values; the message lists all of them.

        Examples
        --------
        >>> from featx import TransferClassifier
        >>> TransferClassifier("tiny", head="logistik").check_params()
        Traceback (most recent call last):
            ...
        featx.exceptions.ParameterError: ... Did you mean 'logistic'?
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
        """Return the parameters, including those of an extractor or head given by name.

        Parameters
        ----------
        deep : bool, default=True
            True if the parameters of the extractor and the head are returned too.

        Returns
        -------
        dict
            Values by name; nested names are written ``extractor__layer`` and ``head__C``.

        Examples
        --------
        >>> from featx import TransferClassifier
        >>> params = TransferClassifier("tiny", head="knn").get_params()
        >>> params["extractor__pooling"], params["head__n_neighbors"]
        ('auto', 5)
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
        """Set parameters, including those of an extractor or head given by name.

        An extractor or head given by name becomes an object when a parameter of it is set. If the
        head is a pipeline with scaling, ``head__C`` sets the `C` of its last step. Keyword
        parameters of heads of other libraries can be set as well, such as
        ``head__feature_fraction`` of LightGBM.

        Parameters
        ----------
        **params : dict
            Values by name.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ParameterError
            A parameter does not exist. The message suggests similar names, and nothing is set.

        Examples
        --------
        >>> from featx import TransferClassifier
        >>> classifier = TransferClassifier("tiny")
        >>> classifier.set_params(extractor__layer="stage2", head__C=10).extractor
        FeatureExtractor(backbone='tiny', layer='stage2')
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
        """Return the unfitted head that `fit` trains on `y`.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values, which determine whether the head has to be wrapped. None stands for
            one output.

        Returns
        -------
        estimator
            Copy of `head`, or the head with that name, seeded with `random_state`.

        Examples
        --------
        >>> from featx import TransferRegressor
        >>> TransferRegressor(head="forest", random_state=0).new_head()
        RandomForestRegressor(n_estimators=300, random_state=0)
        """
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
