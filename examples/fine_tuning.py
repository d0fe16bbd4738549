"""Fine-tune where frozen features are not enough
==============================================

Is an image upside down? A frozen network that was trained to recognize objects says little about
it. Fine-tuning starts exactly from the head that was trained on frozen features (linear probing,
then fine-tuning: Kumar et al. 2022), and is kept only if held-out images show that it is better.

For your own images: ``python examples/fine_tuning.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from PIL import Image
from sklearn.model_selection import train_test_split

from featx import FineTune, TransferClassifier, TuningHistoryDisplay, load_image_folder

N_IMAGES = 1000

folder = load_image_folder(image_folder())
rng = np.random.default_rng(0)
chosen = rng.permutation(len(folder.data))[:N_IMAGES]
angles = rng.choice([0, 180], len(chosen))


def rotated(path, angle):
    """Return an image, rotated by an angle."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((64, 64)).rotate(angle)


X = [rotated(path, angle) for path, angle in zip(folder.data[chosen], angles, strict=True)]
train, test, y_train, y_test = train_test_split(X, angles, test_size=0.3, random_state=0)

figure, axes = plt.subplots(1, 6, figsize=(9, 2), layout="constrained")
for ax, image, angle in zip(axes, train, y_train, strict=False):
    ax.imshow(image)
    ax.set_title(f"{angle}°")
    ax.axis("off")
plt.show()

# %%
# ``unfreeze=1`` trains the topmost block. The layers below it run once, and their output is cached.

tune = FineTune(unfreeze=1, epochs=10, learning_rate=1e-3, batch_size=16)
classifier = TransferClassifier("tiny", fine_tune=tune, random_state=0).fit(train, y_train)
report = classifier.report_
print(f"validation: head {report.head_score:.3f}, fine-tuned {report.tuned_score:.3f}")
print(f"kept: {report.kept}")

# %%
# The dashed line is the score of the head, from which training started:

history = TuningHistoryDisplay.from_estimator(classifier)
plt.show()

# %%
# On images that neither has seen:

frozen = TransferClassifier("tiny").fit(train, y_train)
accuracy = {"frozen": frozen.score(test, y_test), "fine-tuned": classifier.score(test, y_test)}
for name, value in accuracy.items():
    print(f"{name:10}  accuracy {value:.3f}")
