"""Similar images, and why a model predicts a label
================================================

:func:`featx.find_similar` compares the embedding of a query with those of all other images. The
training images that resemble a new one also explain its prediction.

For your own images: ``python examples/similar_images.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from sklearn.model_selection import train_test_split

from featx import TransferClassifier, find_similar, load_image_folder

folder = load_image_folder(image_folder())
train, test, y_train, y_test = train_test_split(
    folder.data, folder.target, test_size=0.2, stratify=folder.target, random_state=0
)
classifier = TransferClassifier("tiny").fit(train, y_train)

# %%
# New images of five classes, each with the six training images that are most similar to it. The
# number is the cosine of the two embeddings.

queries = [test[np.flatnonzero(y_test == name)[0]] for name in folder.target_names[:5]]
similar = find_similar(queries, train, extractor=classifier.extractor_, k=6)

figure, axes = plt.subplots(len(queries), 7, figsize=(9, 8), layout="constrained")
for row, query, indices, cosines in zip(
    axes, queries, similar.indices, similar.similarity, strict=True
):
    row[0].imshow(plt.imread(query), cmap="gray")
    row[0].set_title("query", fontsize="small", fontweight="bold")
    for ax, index, cosine in zip(row[1:], indices, cosines, strict=True):
        ax.imshow(plt.imread(train[index]), cmap="gray")
        ax.set_title(f"{y_train[index]}\n{cosine:.2f}", fontsize="small")
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %%
# Of the neighbors of a test image, those with the predicted label speak for the prediction, and the
# others against it. Where few speak for it, the prediction is more often wrong.

neighbors = find_similar(test, train, extractor=classifier.extractor_, k=10)
predicted = classifier.predict(test)
n_for = (y_train[neighbors.indices] == predicted[:, None]).sum(axis=1)
is_right = predicted == y_test
accuracy = {}
for name, chosen in {"all ten": n_for == 10, "fewer": n_for < 10}.items():
    if chosen.any():
        accuracy[name] = is_right[chosen].mean()
        print(f"{name:7} speak for it: {chosen.sum():4} images, accuracy {accuracy[name]:.3f}")
