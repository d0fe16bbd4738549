"""A child process that embeds or predicts new images, and prints what it did as JSON."""

import json
import os
import sys
import warnings

import numpy as np

import featx
import featx.exceptions


def embed(paths, **params):
    return featx.FeatureExtractor(**params).fit_transform(paths)


def embed_after_fork(paths, **params):
    """Embed half of the images; return whether a forked process refuses to embed the others."""
    extractor = featx.FeatureExtractor(**params).fit(paths)
    extractor.transform(paths[::2])
    child = os.fork()
    if not child:
        code = 1
        try:
            extractor.transform(paths)
        except featx.exceptions.EngineError:
            code = 0
        finally:
            os._exit(code)
    return [os.waitpid(child, 0)[1] == 0]


def predict(paths, **params):
    return featx.load(**params).predict_proba(paths)


def main(job, paths, params, out):
    """Do a job, write its rows to a file, and print warnings and heavy imports."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.save(out, globals()[job](paths, **params))
    heavy = sorted({"keras", "tensorflow"} & sys.modules.keys())
    print(json.dumps({"heavy": heavy, "warnings": [str(each.message) for each in caught]}))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
