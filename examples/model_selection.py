"""Search layers, poolings and heads together, with a single pass over the images.

Lower layers detect edges and textures, upper layers objects; only a search shows which of them suit
your images. ``also_cache`` names the layers that the pass stores, so that the search finds the
embeddings of every candidate in the cache.

Usage: python examples/layer_and_head_search.py [FOLDER]
"""

import pandas as pd
from digits import image_folder
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import FeatureExtractor, TransferClassifier, load_image_folder

folder = load_image_folder(image_folder())

layers = ["stage2", "stage3", "stage4"]  # None is the output of the network
poolings = ["avg", "max"]
extractor = FeatureExtractor(
    "tiny", also_cache=[(layer, pooling) for layer in layers for pooling in poolings]
)

# Embedding first shows a progress bar, and lets a search with n_jobs=2 find every row: workers do
# not import TensorFlow when all rows are cached.
extractor.set_params(verbose=1).fit_transform(folder.data)
print(f"{extractor.report_.n_forward} forward passes for {len(folder.data)} images")

features = {"extractor__layer": layers, "extractor__pooling": poolings}
linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
ridge = make_pipeline(StandardScaler(), RidgeClassifier())
grid = [
    {**features, "head": [linear], "head__logisticregression__C": [0.001, 0.01]},
    {**features, "head": [ridge], "head__ridgeclassifier__alpha": [10, 100]},
    {**features, "head": [KNeighborsClassifier()], "head__n_neighbors": [1, 5]},
]
search = GridSearchCV(TransferClassifier(extractor), grid, cv=3)
search.fit(folder.data, folder.target)

results = pd.DataFrame(search.cv_results_)
results["head"] = [
    getattr(head, "steps", [(type(head).__name__.lower(), head)])[-1][0]
    for head in results.param_head
]
candidates = results.groupby(["param_extractor__layer", "param_extractor__pooling", "head"])
best = candidates.mean_test_score.max()
print(best.unstack().round(3).to_string())
chosen = search.best_estimator_.extractor
print(f"best: {search.best_score_:.3f} with {chosen.layer}, {chosen.pooling}")
print(f"{search.best_estimator_.report_.n_forward} forward passes for the search")
