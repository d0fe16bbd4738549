"""A search with two workers of joblib on a warm cache; prints what each worker had imported."""

import json
import os
import sys

import numpy as np
from sklearn.model_selection import GridSearchCV

from featx import FeatureExtractor, TransferClassifier


def score(estimator, images, labels):
    """Score as scikit-learn does, and say what is imported in this process."""
    accuracy = (estimator.predict(images) == labels).mean()
    return {
        "accuracy": accuracy,
        "worker": os.getpid() != MAIN,
        "tensorflow": "tensorflow" in sys.modules,
    }


MAIN = os.getpid()

if __name__ == "__main__":
    extractor = FeatureExtractor(sys.argv[1], preprocessing="unit")
    images = np.load(sys.argv[2])
    classifier = TransferClassifier(extractor)
    search = GridSearchCV(
        classifier, {"head__C": [0.1, 1.0]}, scoring=score, refit=False, cv=3, n_jobs=2
    )
    results = search.fit(images, np.arange(24) % 2).cv_results_
    names = ("accuracy", "worker", "tensorflow")
    print(json.dumps({name: np.mean(results[f"mean_test_{name}"]) for name in names}))
