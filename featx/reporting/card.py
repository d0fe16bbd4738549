"""ModelCard and model_card: a README.md that describes a model, in the form of Hugging Face.

skops' ``Card`` is not used: it writes no front matter (skops 0.16), shows all parameters, paths
too, and does not escape names in its tables.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sklearn.utils.validation import check_is_fitted

from featx._files import replaced_atomically
from featx._text import one_line
from featx._transfer import TransferEstimator
from featx._validation import as_path
from featx._version import __version__
from featx.exceptions import InputError, MissingExtraError, ParameterError
from featx.reporting.card_measurements import Measurements
from featx.reporting.card_model import ModelFacts
from featx.reporting.markdown import render

_PACKAGES = ("keras", "scikit-learn", "numpy", "pillow", "skops")


class ModelCard:
    """Model card: what a model is, how good it is, how to use it, and where its limits are.

    Use :func:`model_card` to make one. ``str(card)`` is the text of a README.md.

    Parameters
    ----------
    metadata : dict
        Front matter, as plain data: ``library_name``, ``license``, ``tags``, ``metrics``,
        ``model-index`` and others of Hugging Face's model cards.
    body : str
        Markdown below the front matter.

    See Also
    --------
    model_card : Describe an estimator as a model card.
    report : Evaluation of an estimator, whose scores a card shows.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier, model_card
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    >>> card = model_card(TransferClassifier("tiny").fit(images, ["cat", "dog"] * 3))
    >>> card.metadata["license"], card.metadata["pipeline_tag"]
    ('mit', 'image-classification')
    """

    def __init__(self, metadata: dict[str, Any], body: str) -> None:
        self.metadata = metadata
        self.body = body

    def __str__(self) -> str:
        return f"---\n{_yaml(self.metadata)}---\n\n{self.body}"

    def __repr__(self) -> str:
        return f"<ModelCard {self.body.partition(chr(10))[0].removeprefix('# ')}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the card to a file.

        Parameters
        ----------
        path : str or Path
            Path of the file, as in ``"README.md"``. An existing regular file is replaced once the
            new one is complete.

        Raises
        ------
        ParameterError
            `path` is of another type, or a folder, a link or a device, or its folder is missing.
        OSError
            The file cannot be written; an existing file is unharmed.

        Examples
        --------
        >>> import os, tempfile
        >>> from featx import ModelCard
        >>> path = os.path.join(tempfile.mkdtemp(), "README.md")
        >>> ModelCard({"license": "mit"}, "# Cats and dogs").save(path)
        >>> with open(path) as file:
        ...     print(file.read())
        ---
        license: mit
        ---
        <BLANKLINE>
        # Cats and dogs
        """
        path = as_path(path)
        if not path.absolute().parent.is_dir():
            raise ParameterError(f"{str(path)!r}: no such folder to write to")
        text = str(self)
        with replaced_atomically(path) as beside:
            beside.write_text(text, encoding="utf-8")


def model_card(estimator: Any, report: Any = None) -> ModelCard:
    """Describe a fitted estimator, and its measured scores, as a model card.

    The card follows Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993), and
    has the front matter of Hugging Face. It names no file or folder of this machine. A license of
    weights that is not known is "unknown", and a point under "To do".

    Parameters
    ----------
    estimator : TransferClassifier or TransferRegressor
        Fitted estimator, or one that :func:`load` returned.
    report : Report or dict, default=None
        Report of :func:`report`, or the data of its ``to_dict``, from which metrics, data and split
        are taken; all parts are optional. None writes "not measured".

    Returns
    -------
    ModelCard
        Card, whose text is ``str(card)``, and which ``card.save(path)`` writes to a file.

    Raises
    ------
    NotFittedError
        The estimator is not fitted.
    ParameterError
        `estimator` or `report` is of another type.
    InputError
        The report is of a model with other classes, or of a classifier if this is a regressor.
    MissingExtraError
        ``featx[report]`` is not installed.

    See Also
    --------
    report : Report whose scores a card shows.
    evaluate : Metrics of predictions.
    save : Write the estimator that a card describes.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier, evaluate, model_card
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    >>> classifier = TransferClassifier("tiny").fit(images, ["cat", "dog"] * 3)
    >>> measured = evaluate(["cat", "dog", "dog"], ["cat", "dog", "cat"])
    >>> card = model_card(classifier, {"metrics": measured})
    >>> print(str(card).partition("## Results")[2].partition("| macro")[0])
    <BLANKLINE>
    <BLANKLINE>
    Split: not recorded
    <BLANKLINE>
    | metric | value | 95% interval |
    |---|---|---|
    | accuracy | 0.667 | 0.208 to 0.939 |
    <BLANKLINE>
    """
    if not isinstance(estimator, TransferEstimator):
        raise ParameterError.of(
            "estimator", estimator, "expected a TransferClassifier or TransferRegressor"
        )
    check_is_fitted(estimator)
    measured = Measurements.of(report)
    model = ModelFacts(estimator)
    _check_same_model(model, measured)
    _check_same_space(estimator, measured)
    context = {
        "title": model.title,
        "summary": model.summary,
        **measured.context(),
        **model.context(),
        "data": [*measured.data(), *model.training()],
        "limits": [*model.limits(), *measured.limits()],
        "tasks": [*model.tasks(), *measured.tasks()],
        "versions": list({**_versions(), **measured.versions()}.items()),
    }
    return ModelCard(_front_matter(model, measured), render("card.md", context))


def _check_same_model(model: ModelFacts, measured: Measurements) -> None:
    """Raise an InputError if a report is of a model of another kind, or with other classes."""
    is_of_classifier = measured.part("metrics", "accuracy") is not None
    if is_of_classifier and not model.is_classifier:
        raise InputError("the report is of a classifier, but the model is a regressor")
    unknown = [name for name in measured.table("metrics", "classes") if name not in model.classes]
    if model.classes and unknown:
        raise InputError(
            f"the report is of another model: it has the classes "
            f"{', '.join(map(one_line, unknown[:10]))}, which the model does not know"
        )


def _check_same_space(estimator: TransferEstimator, measured: Measurements) -> None:
    """Raise an InputError if a report is of other embeddings; fine-tuning changes them."""
    reported, own = measured.part("model", "space"), estimator.extractor_.space_digest_
    if estimator.fine_tune is None and reported not in (None, own):
        backbone = one_line(measured.part("model", "backbone"))
        raise InputError(
            f"the report is of another model: its embeddings are of space {one_line(reported)} "
            f"(backbone {backbone}), those of the model of {own}"
        )


def _versions() -> dict[str, str]:
    """Return the versions with which the card is written."""
    found = {"featx": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _front_matter(model: ModelFacts, measured: Measurements) -> dict[str, Any]:
    """Return the metadata of a card; see huggingface.co/docs/hub/model-cards."""
    metrics = measured.for_hugging_face()
    metadata: dict[str, Any] = {
        "library_name": "featx",
        "license": model.license,
        "tags": ["featx", "keras", "scikit-learn", "transfer-learning"],
    }
    if model.pipeline_tag:
        metadata["pipeline_tag"] = model.pipeline_tag
    if metrics:
        task = {"type": model.pipeline_tag or "other"}
        dataset = {"name": "data of the author", "type": "custom"}
        result = {"task": task, "dataset": dataset, "metrics": metrics}
        metadata["metrics"] = [metric["type"] for metric in metrics]
        metadata["model-index"] = [{"name": model.name, "results": [result]}]
    return metadata


def _yaml(metadata: dict[str, Any]) -> str:
    """Return metadata as YAML; MissingExtraError is raised if PyYAML is not installed."""
    try:
        import yaml
    except ImportError as exc:
        raise MissingExtraError(
            "a model card needs PyYAML, which is not installed: pip install 'featx[report]'"
        ) from exc
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
