"""Numbers instead of classes
==========================

By which angle is an image rotated? ``TransferRegressor`` predicts numbers in the same way as
``TransferClassifier`` predicts labels.

For your own images: ``python examples/regression.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from PIL import Image
from sklearn.dummy import DummyRegressor
from sklearn.metrics import PredictionErrorDisplay, mean_absolute_error, r2_score
from sklearn.model_selection import GridSearchCV, train_test_split

from featx import FeatureExtractor, TransferRegressor, load_image_folder

folder = load_image_folder(image_folder())
rng = np.random.default_rng(0)
chosen = rng.permutation(len(folder.data))[:1000]
degrees = rng.uniform(-45, 45, len(chosen))


def rotated(path, angle):
    """Return an image, rotated by some degrees."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((64, 64)).rotate(angle, Image.Resampling.BILINEAR)


X = [rotated(path, angle) for path, angle in zip(folder.data[chosen], degrees, strict=True)]
train, test, y_train, y_test = train_test_split(X, degrees, test_size=0.25, random_state=0)

# %%
# Average pooling loses the directions in an image, so the search also tries a lower layer with
# ``pooling="flatten"``.

layers = [("stage3", "flatten"), (None, "avg")]
extractor = FeatureExtractor("tiny", also_cache=layers)
grid = [
    {
        "extractor__layer": [layer],
        "extractor__pooling": [pooling],
        "head__alpha": [1, 10, 100],
    }
    for layer, pooling in layers
]
search = GridSearchCV(TransferRegressor(extractor, head="ridge"), grid, cv=3)
search.fit(train, y_train)
predicted = search.predict(test)
error = mean_absolute_error(y_test, predicted)
guess = DummyRegressor().fit(np.zeros((len(y_train), 1)), y_train)
guess_error = mean_absolute_error(y_test, guess.predict(np.zeros((len(y_test), 1))))
print("best:", search.best_params_)
print(f"mean error {error:.1f} degrees, R² {r2_score(y_test, predicted):.3f}")
print(f"guessing the mean: {guess_error:.1f} degrees")

# %%
# The predicted and the true angles:

PredictionErrorDisplay.from_predictions(y_test, predicted, kind="actual_vs_predicted")
plt.show()

# %%
# Some images, and the same images rotated back by the predicted angle:

figure, axes = plt.subplots(2, 6, figsize=(9, 3.5), layout="constrained")
for above, below, image, angle in zip(*axes, test, predicted, strict=False):
    above.imshow(image)
    above.set_title(f"{angle:.0f}°")
    below.imshow(image.rotate(-angle, Image.Resampling.BILINEAR))
for ax in axes.flat:
    ax.axis("off")
plt.show()
