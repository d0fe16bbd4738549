"""Choose a backbone, a layer and a head
=====================================

A comparison on the same folds shows which head suits the embeddings of which backbone. Then a grid
search looks for the layer, the pooling and the strength: lower layers detect edges and textures,
upper layers objects, and only a search shows which of them suit your images.

For your own images: ``python examples/model_selection.py FOLDER``. On the command line,
``featx cv FOLDER --backbone tiny --head logistic --head probe`` compares backbones and heads.
"""

import matplotlib.pyplot as plt
import pandas as pd
from digits import image_folder
from sklearn.model_selection import GridSearchCV

from featx import (
    FeatureExtractor,
    TransferClassifier,
    compare_heads,
    load_image_folder,
    near_duplicates,
)

folder = load_image_folder(image_folder())
X, y = folder.data[::2], folder.target[::2]

# %%
# Backbones and heads
# -------------------
# The same network with random weights shows what pretraining is worth. ``p_value`` is that of the
# difference from the best head. Digits of one writer resemble each other; groups keep those that
# are nearly the same in one fold.

heads = ["logistic", "ridge", "knn", "nearest_mean"]
rows = []
for name, weights in {"tiny": "pretrained", "tiny, random weights": None}.items():
    embeddings = FeatureExtractor("tiny", weights=weights).fit_transform(X)
    groups = near_duplicates(embeddings).groups
    for result in compare_heads(embeddings, y, heads=heads, n_folds=3, groups=groups):
        rows.append({"backbone": name, "head": result.head, "accuracy": result.mean})
        rows[-1] |= {"spread": result.spread, "p_value": result.p_value}
comparison = pd.DataFrame(rows)
print(comparison.round(3).to_string(index=False))

# %%
# Layers, poolings and strengths
# ------------------------------
# ``also_cache`` names the layers that the first pass stores, so that the search finds the
# embeddings of every candidate in the cache.

layers, poolings = ["stage2", "stage3", "stage4"], ["avg", "max"]
extractor = FeatureExtractor(
    "tiny", also_cache=[(layer, pooling) for layer in layers for pooling in poolings]
)
extractor.fit_transform(X)
print(f"{extractor.report_.n_forward} forward passes for {len(X)} images")

grid = {
    "extractor__layer": layers,
    "extractor__pooling": poolings,
    "head__ridgeclassifier__alpha": [1, 10, 100],
}
search = GridSearchCV(TransferClassifier(extractor, head="ridge"), grid, cv=3).fit(X, y)
print(f"{search.best_estimator_.report_.n_forward} forward passes for the search")

# %%
# The best strength of each layer and pooling:

results = pd.DataFrame(search.cv_results_)
best = results.pivot_table(
    "mean_test_score", "param_extractor__layer", "param_extractor__pooling", aggfunc="max"
)
figure, ax = plt.subplots(figsize=(4, 3.5), layout="constrained")
ax.imshow(best, cmap="Blues", vmin=best.min(axis=None) - 0.05, vmax=1)
for row, layer in enumerate(best.index):
    for column, pooling in enumerate(best.columns):
        ax.text(column, row, f"{best.loc[layer, pooling]:.3f}", ha="center", va="center")
ax.set_xticks(range(len(best.columns)), best.columns)
ax.set_yticks(range(len(best.index)), best.index)
ax.set(xlabel="pooling", ylabel="layer", title="accuracy in three folds")
plt.show()
