"""featx: transfer learning as one scikit-learn estimator.

Each sample goes through the frozen backbone only once. ``import featx`` loads neither
TensorFlow nor h5py: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featx._version import __version__

if TYPE_CHECKING:
    from featx.backbones.registry import list_backbones
    from featx.cache.cache import EmbeddingCache
    from featx.estimators import TransferClassifier, TransferRegressor
    from featx.evaluation.comparison import compare_heads
    from featx.evaluation.duplicates import near_duplicates
    from featx.evaluation.image_checks import find_image_issues
    from featx.evaluation.label_issues import find_label_issues
    from featx.evaluation.metrics import evaluate
    from featx.evaluation.neighbors import find_similar
    from featx.extractor import FeatureExtractor
    from featx.finetune.params import FineTune
    from featx.inputs.folders import load_image_folder
    from featx.inputs.tables import load_table
    from featx.inputs.webdataset import load_webdataset
    from featx.multi_gpu import embed_on_gpus
    from featx.probes.knn import KNNProbe
    from featx.probes.linear import LinearProbe
    from featx.probes.nearest_mean import NearestMeanProbe
    from featx.probes.pca import MomentPCA
    from featx.probes.ridge import RidgeProbe, RidgeProbeRegressor
    from featx.reporting.card import ModelCard, model_card
    from featx.reporting.curves import ProbePathDisplay, TuningHistoryDisplay
    from featx.reporting.embedding_map import EmbeddingMapDisplay
    from featx.reporting.layers import LayerDisplay
    from featx.reporting.mistakes import MistakesDisplay
    from featx.reporting.report import Report, report
    from featx.saving.persistence import TRUSTED_TYPES, load, save

__all__ = [
    "TRUSTED_TYPES",
    "EmbeddingCache",
    "EmbeddingMapDisplay",
    "FeatureExtractor",
    "FineTune",
    "KNNProbe",
    "LayerDisplay",
    "LinearProbe",
    "MistakesDisplay",
    "ModelCard",
    "MomentPCA",
    "NearestMeanProbe",
    "ProbePathDisplay",
    "Report",
    "RidgeProbe",
    "RidgeProbeRegressor",
    "TransferClassifier",
    "TransferRegressor",
    "TuningHistoryDisplay",
    "__version__",
    "compare_heads",
    "embed_on_gpus",
    "evaluate",
    "find_image_issues",
    "find_label_issues",
    "find_similar",
    "list_backbones",
    "load",
    "load_image_folder",
    "load_table",
    "load_webdataset",
    "model_card",
    "near_duplicates",
    "report",
    "save",
]

_HOMES = {
    "EmbeddingCache": "cache.cache",
    "EmbeddingMapDisplay": "reporting.embedding_map",
    "FeatureExtractor": "extractor",
    "FineTune": "finetune.params",
    "KNNProbe": "probes.knn",
    "LayerDisplay": "reporting.layers",
    "LinearProbe": "probes.linear",
    "MistakesDisplay": "reporting.mistakes",
    "ModelCard": "reporting.card",
    "MomentPCA": "probes.pca",
    "NearestMeanProbe": "probes.nearest_mean",
    "ProbePathDisplay": "reporting.curves",
    "Report": "reporting.report",
    "RidgeProbe": "probes.ridge",
    "RidgeProbeRegressor": "probes.ridge",
    "TRUSTED_TYPES": "saving.persistence",
    "TransferClassifier": "estimators",
    "TransferRegressor": "estimators",
    "TuningHistoryDisplay": "reporting.curves",
    "compare_heads": "evaluation.comparison",
    "embed_on_gpus": "multi_gpu",
    "evaluate": "evaluation.metrics",
    "find_image_issues": "evaluation.image_checks",
    "find_label_issues": "evaluation.label_issues",
    "find_similar": "evaluation.neighbors",
    "list_backbones": "backbones.registry",
    "load": "saving.persistence",
    "load_image_folder": "inputs.folders",
    "load_table": "inputs.tables",
    "load_webdataset": "inputs.webdataset",
    "model_card": "reporting.card",
    "near_duplicates": "evaluation.duplicates",
    "report": "reporting.report",
    "save": "saving.persistence",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    return getattr(import_module(f"featx.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
