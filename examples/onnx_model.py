"""Export a model to ONNX, and run it without featx
================================================

The exported file takes pixels and returns probabilities; network, preprocessing and head are one
graph. ONNX Runtime runs it in Python, in the browser, in node and in other languages. It needs
``pip install "featx[onnx]"``.

For your own images: ``python examples/onnx_model.py FOLDER``.
"""

import json

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from digits import image_folder
from PIL import Image
from sklearn.model_selection import train_test_split

from featx import TransferClassifier, load_image_folder

folder = load_image_folder(image_folder())
train, test, y_train, y_test = train_test_split(
    folder.data, folder.target, train_size=0.3, stratify=folder.target, random_state=0
)
classifier = TransferClassifier("tiny").fit(train, y_train)

# %%
# ``include_resize=True`` makes a model that takes images of any size.

classifier.export("classifier.onnx", format="onnx", include_resize=True)

# %%
# From here on, nothing of featx is used. The file holds the names of the classes, and what its
# input has to be.

session = onnxruntime.InferenceSession("classifier.onnx")
metadata = session.get_modelmeta().custom_metadata_map
class_names, inputs = json.loads(metadata["class_names"]), json.loads(metadata["inputs"])
print("classes:", class_names)
print("inputs:", inputs)

# %%
# The probabilities are those of featx, up to rounding. Large JPEG files are opened as featx opens
# them, at no more than twice the size of the network's input, which changes pixels a little.

(model_input,) = session.get_inputs()
height, width = inputs["size"]


def probabilities_of(path):
    """Return the probabilities of an image file."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * width, 2 * height))
        pixels = np.asarray(image.convert("RGB"))
    return session.run(None, {model_input.name: pixels[np.newaxis]})[0][0]


in_onnx = np.array([probabilities_of(path) for path in test[:100]])
in_featx = classifier.predict_proba(test[:100])
difference = np.abs(in_onnx - in_featx).max()
print(f"largest difference of a probability, in 100 images: {difference:.1e}")

# %%
# One image of which the model is not sure, and what both say of it:

unsure = in_featx.max(axis=1).argmin()
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.imshow(plt.imread(test[unsure]), cmap="gray")
left.set_title(f"labeled {y_test[unsure]}")
left.axis("off")
places = np.arange(len(class_names))
right.bar(places - 0.2, in_featx[unsure], 0.4, label="featx")
right.bar(places + 0.2, in_onnx[unsure], 0.4, label="ONNX Runtime")
right.set_xticks(places, class_names)
right.set(xlabel="class", ylabel="probability")
right.legend()
plt.show()
