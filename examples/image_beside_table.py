"""A column of images beside columns of numbers
============================================

A ``ColumnTransformer`` takes images like any other column. Here, the image shows the upper half of
a handwritten digit; the table has the amount of ink in each row of pixels of the lower half. Both
together predict better than either. In your own data this may be the photo of a product with its
weight and price, or an X-ray with age and blood test.

For your own images: ``python examples/image_beside_table.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from digits import image_folder
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import FeatureExtractor, load_image_folder

folder = load_image_folder(image_folder())
chosen = np.random.default_rng(0).permutation(len(folder.data))[:600]
paths, y = folder.data[chosen], folder.target[chosen]

uppers, inks = [], []
for path in paths:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L").resize((64, 64)))
    uppers.append(Image.fromarray(pixels[:32]))
    inks.append(pixels[32:].reshape(8, -1).mean(axis=1))

# %%
# A frame may hold paths, bytes or PIL images. Here, a row has an image and eight numbers.

numbers = [f"ink_{row}" for row in range(8)]
X = pd.DataFrame(np.array(inks), columns=numbers)
X["image"] = uppers
print(X[numbers].head(3).round(1).to_string())

figure, axes = plt.subplots(1, 6, figsize=(9, 1.2), layout="constrained")
for ax, image, label in zip(axes, uppers, y, strict=False):
    ax.imshow(image, cmap="gray")
    ax.set_title(label)
    ax.axis("off")
plt.show()

# %%
# The image alone, the table alone, and both:

image_part = (FeatureExtractor("tiny"), ["image"])
table_part = (StandardScaler(), numbers)
parts = {"image": [image_part], "table": [table_part], "both": [image_part, table_part]}

accuracy = {}
for name, columns in parts.items():
    model = make_pipeline(
        make_column_transformer(*columns), StandardScaler(), LogisticRegression(max_iter=1000)
    )
    accuracy[name] = cross_val_score(model, X, y, cv=5).mean()
    print(f"{name:5}  accuracy {accuracy[name]:.3f}")

# %%
# Which column matters most? Images are shuffled like any other column.

n_train = len(X) * 2 // 3
model.fit(X[:n_train], y[:n_train])
test, y_test = X[n_train:], y[n_train:]
result = permutation_importance(model, test, y_test, n_repeats=5, random_state=0)
order = result.importances_mean.argsort()
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.boxplot(result.importances[order].T, orientation="horizontal", tick_labels=X.columns[order])
ax.set(xlabel="loss of accuracy when a column is shuffled")
plt.show()
