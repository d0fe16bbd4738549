"""Your own Keras model as the backbone
====================================

A small network is trained on the digits 0 to 5. Then it is frozen, and serves as the backbone of a
classifier for the digits 6 to 9, which it has never seen, with five labeled images of each. A
comparison with the same network with random weights shows what the training gains.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from featx import FeatureExtractor, TransferClassifier

levels, y = load_digits(return_X_y=True)
X = (levels.reshape(-1, 8, 8, 1) * 15.9375).astype("uint8")
old = y < 6
new, y_new = X[~old], y[~old]


def network():
    """Return the network, which scales pixels itself."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(32, 3, activation="relu", padding="same"),
            keras.layers.Conv2D(64, 3, activation="relu", padding="same", strides=2),
            keras.layers.Conv2D(64, 3, activation="relu", padding="same", name="features"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(6),
        ]
    )


trained = network()
trained.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
trained.fit(X[old], y[old], epochs=15, verbose=0)

# %%
# The network scales pixels itself, so ``preprocessing`` is None. ``layer`` names the layer whose
# output is used.

few = StratifiedShuffleSplit(n_splits=5, train_size=20, random_state=0)
scores = {}
for name, model in {"random weights": network(), "trained on 0 to 5": trained}.items():
    extractor = FeatureExtractor(model, layer="features", pooling="flatten", preprocessing=None)
    scores[name] = cross_val_score(TransferClassifier(extractor), new, y_new, cv=few)
    print(f"{name:17}  accuracy on 6 to 9: {scores[name].mean():.3f}")

figure, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
ax.boxplot(scores.values(), orientation="horizontal", tick_labels=scores)
ax.set(xlabel="accuracy on 6 to 9, five labeled images of each")
plt.show()

# %%
# The cache identifies a network by its graph and its weights, so after further training, new
# embeddings are computed.

trained.fit(X[old], y[old], epochs=1, verbose=0)
rows = extractor.fit_transform(new)
print(f"after one more epoch: {extractor.report_.n_forward} forward passes for {len(new)} images")

# %%
# For searches with ``n_jobs=2``, save the model and pass its path: the workers then need no
# TensorFlow.

trained.save("own.keras")
saved = FeatureExtractor("own.keras", layer="features", pooling="flatten", preprocessing=None)
same = np.array_equal(saved.fit_transform(new), rows)
print(f"the saved file finds the same rows: {same}, {saved.report_.n_forward} forward passes")
