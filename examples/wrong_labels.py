"""Find wrong labels
=================

Labels that people gave are wrong now and then. :func:`featx.find_label_issues` ranks the labels by
how probable they are to a probe that was trained on other images, and to the nearest neighbors.
Here, 3% of the labels are changed, to see how many of them are found.

For your own images, ``featx check FOLDER`` lists suspect labels, duplicates and unusual images;
``python examples/wrong_labels.py FOLDER`` repeats this experiment.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder

from featx import FeatureExtractor, find_label_issues, load_image_folder

folder = load_image_folder(image_folder())
rng = np.random.default_rng(0)
labels = folder.target.copy()
changed = rng.permutation(len(labels))[: max(1, len(labels) * 3 // 100)]
for row in changed:
    labels[row] = rng.choice([name for name in folder.target_names if name != labels[row]])
is_changed = np.isin(np.arange(len(labels)), changed)

# %%
# The list holds more images than wrong labels, since some are only hard to classify. ``n_expected``
# estimates how many labels are wrong.

embeddings = FeatureExtractor("tiny").fit_transform(folder.data)
issues = find_label_issues(embeddings, labels)
low, high = issues.n_expected_interval
print(f"{len(issues.indices)} suspect labels of {len(labels)}, {is_changed.sum()} were changed")
print(f"expected number of wrong labels: {issues.n_expected:.0f} ({low:.0f} to {high:.0f})")

# %%
# The most suspect labels, each with the label that featx suggests:

figure, axes = plt.subplots(2, 6, figsize=(9, 3.8), layout="constrained")
for ax, row in zip(axes.flat, issues.indices, strict=False):
    ax.imshow(plt.imread(folder.data[row]), cmap="gray")
    color = "tab:green" if is_changed[row] else "tab:red"
    ax.set_title(f"{labels[row]}\n→ {issues.suggested[row]}", color=color, fontsize="small")
for ax in axes.flat:
    ax.axis("off")
figure.suptitle("given → suggested; green where the label was changed")
plt.show()

# %%
# How far down does one have to look? Most of the changed labels are at the top.

n_found = is_changed[issues.indices].cumsum()
figure, ax = plt.subplots(layout="constrained")
ax.plot(np.arange(1, len(n_found) + 1), n_found, label="found")
ax.axhline(is_changed.sum(), color="gray", linestyle=":", label="all that were changed")
ax.axvspan(low, high, color="tab:orange", alpha=0.3, label="expected number of wrong labels")
ax.set(xlabel="suspect labels looked at", ylabel="changed labels among them")
ax.legend()
plt.show()
