"""Print as JSON what featx gives on the backend of Keras that KERAS_BACKEND names.

The arguments are rows of UNFROZEN: what to unfreeze when a network is fine-tuned.
"""

import json
import sys
import tempfile
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader


class NoTensorFlow(MetaPathFinder, Loader):
    """Makes importing TensorFlow fail, as where it is not installed."""

    def find_spec(self, name, path, target=None):
        return spec_from_loader(name, self) if name == "tensorflow" else None

    def exec_module(self, module):
        raise ImportError("TensorFlow is not to be needed here")


def main(choices):
    import keras
    import numpy as np
    from digit_tuning import UNFROZEN, changed_by_tuning, classifier
    from sample_digits import first_digits

    from featx import EmbeddingCache, FeatureExtractor

    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype="uint8")
    digits = first_digits(96, n_classes=3)

    def rows(**params):
        extractor = FeatureExtractor("tiny", cache=None, batch_size=3, **params)
        return extractor.fit_transform(images).tolist()

    def losses(**params):
        with tempfile.TemporaryDirectory() as folder:
            optimizer = keras.optimizers.AdamW(1e-3, use_ema=True, ema_momentum=0.9)
            tuning = {"unfreeze": 2, "optimizer": optimizer, **params}
            estimator = classifier(EmbeddingCache(folder), **tuning)
            return estimator.fit(*digits).report_.history["loss"]

    views = {"views": 3, "augment": "standard"}
    found = {
        "backend": keras.backend.backend(),
        "rows": rows(),
        "views": [rows(**views, n_jobs=n_jobs) for n_jobs in (1, 4)],
        "from pixels": losses(max_cache_bytes=1),
        "from the frontier": losses(),
        "changed": [changed_by_tuning(digits, UNFROZEN[choice][0])[1:] for choice in choices],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.meta_path.insert(0, NoTensorFlow())
    main([int(choice) for choice in sys.argv[1:]])
