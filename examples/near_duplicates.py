"""Near-duplicates make a score too good
=====================================

Frames of a video, bursts of a camera and copies of a photograph are nearly the same image. If some
of them are in the training data and others in the test data, the score measures how well the model
remembers them. :func:`featx.near_duplicates` finds such images and puts them into groups, which
keep them together in cross-validation.

Here, each of a few digits comes in five versions, which are trimmed, brighter or compressed. For
your own images, ``featx check FOLDER`` lists near-duplicates; ``python examples/near_duplicates.py
FOLDER`` repeats this experiment.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from PIL import Image, ImageEnhance
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from featx import FeatureExtractor, TransferClassifier, load_image_folder, near_duplicates

N_ORIGINALS = 50


def versions(path):
    """Return an image, and four versions of it."""
    with Image.open(path) as opened:
        image = opened.convert("RGB").resize((64, 64))
    compressed = io.BytesIO()
    image.save(compressed, "JPEG", quality=20)
    return [
        image,
        image.crop((2, 2, 62, 62)).resize((64, 64)),
        ImageEnhance.Brightness(image).enhance(1.3),
        image.resize((40, 40)),
        Image.open(compressed),
    ]


folder = load_image_folder(image_folder())
chosen = np.random.default_rng(0).permutation(len(folder.data))[:N_ORIGINALS]
images = [version for path in folder.data[chosen] for version in versions(path)]
y = np.repeat(folder.target[chosen], 5)
original = np.repeat(np.arange(len(chosen)), 5)

# %%
# With ``images=``, featx compares pixels as well as embeddings.

embeddings = FeatureExtractor("tiny").fit_transform(images)
found = near_duplicates(embeddings, images=images)
is_true = original[found.pairs[:, 0]] == original[found.pairs[:, 1]]
print(f"{len(found.pairs)} pairs, {is_true.mean():.1%} of them versions of one image")
print(f"{len(images)} images in {len(set(found.groups))} groups")

# %%
# One of the largest groups:

members = np.flatnonzero(found.groups == np.bincount(found.groups).argmax())[:6]
figure, axes = plt.subplots(1, len(members), figsize=(9, 2), layout="constrained")
for ax, member in zip(axes, members, strict=True):
    ax.imshow(images[member])
    ax.set_title(f"[{member}] {y[member]}")
    ax.axis("off")
plt.show()

# %%
# If you pass ``groups``, the images of a group are never split between training and test data. The
# difference between the two scores is the part that you would not see on new images.

classifier = TransferClassifier("tiny")
apart = StratifiedKFold(4, shuffle=True, random_state=0)
together = StratifiedGroupKFold(4, shuffle=True, random_state=0)
scores = {
    "copies in both parts": cross_val_score(classifier, images, y, cv=apart),
    "groups kept together": cross_val_score(
        classifier, images, y, cv=together, groups=found.groups
    ),
}
figure, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
means = [score.mean() for score in scores.values()]
ax.bar_label(ax.barh(list(scores), means, color=["tab:red", "tab:blue"]), fmt="%.3f", padding=3)
ax.set(xlabel="accuracy", xlim=(0, 1.15))
plt.show()
