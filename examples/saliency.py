"""Which pixels decide? A saliency map
===================================

The exported Keras model takes pixels as floats, so TensorFlow can compute the gradient of the
predicted probability with respect to each pixel. The mean of the gradients over noisy copies of
the image gives a sharper map than a single gradient (SmoothGrad, Smilkov et al. 2017).

For your own images: ``python examples/saliency.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from digits import image_folder
from PIL import Image

from featx import TransferClassifier, load_image_folder

N_COPIES, NOISE = 32, 8.0  # the standard deviation of the noise, in levels of 255

folder = load_image_folder(image_folder())
classifier = TransferClassifier("tiny").fit(folder.data, folder.target)
model = classifier.to_keras(input_dtype="float32")

# %%
# The model takes images of one size. As in featx, the Lanczos filter resizes them.

height, width = model.input_shape[1:3]
with Image.open(folder.data[0]) as opened:
    image = opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
pixels = np.asarray(image, np.float32)
predicted = int(np.argmax(model(pixels[np.newaxis])))

# %%
# The logarithm of the probability still has a gradient where the model is certain, and the
# probability is almost 1.

noise = np.random.default_rng(0).normal(0, NOISE, (N_COPIES, *pixels.shape))
copies = tf.convert_to_tensor(np.clip(pixels + noise, 0, 255), tf.float32)
with tf.GradientTape() as tape:
    tape.watch(copies)
    scores = tf.math.log(model(copies)[:, predicted] + 1e-30)
saliency = np.abs(tape.gradient(scores, copies)).max(axis=-1).mean(axis=0)

# %%
# Light pixels have the largest influence on the prediction.

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
left.imshow(image)
left.set_title(f"predicted: {model.class_names[predicted]}")
right.imshow(image.convert("L"), cmap="gray")
right.imshow(saliency, cmap="inferno", alpha=0.7)
right.set_title("saliency")
for axes in (left, right):
    axes.axis("off")
plt.show()
