"""Predict millions of images into a Parquet file
==============================================

If the paths fit in memory but the images do not, predict them in chunks. Each chunk becomes a row
group of one Parquet file, so only one chunk is in memory at a time, and a file that cannot be read
does not stop the run. The example needs ``pip install "featx[parquet]"``.

For your own images: ``python examples/batch_predict.py FOLDER``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder

from featx import FeatureExtractor, TransferClassifier, load, load_image_folder, save

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise SystemExit("This example writes Parquet: pip install pyarrow") from None

CHUNK = 256

# %%
# Load a model that was saved before. With ``on_error="nan"``, an image that cannot be read gets a
# row of NaN. With ``cache=None``, embeddings that are used only once are not stored.

folder = load_image_folder(image_folder())
few = np.random.default_rng(0).permutation(len(folder.data))[:300]
extractor = FeatureExtractor("tiny", on_error="nan")
save(TransferClassifier(extractor).fit(folder.data[few], folder.target[few]), "batch.featx")
classifier = load("batch.featx", cache=None)

# %%
# One of the images is damaged:

Path("damaged.png").write_bytes(Path(folder.data[0]).read_bytes()[:100])
paths = [*folder.data.tolist(), "damaged.png"]


def predicted_rows(chunk):
    """Return paths, labels and probabilities of some images as a table; null if unreadable."""
    embeddings = classifier.transform(chunk)
    is_read = np.isfinite(embeddings).all(axis=1)
    proba = np.full((len(chunk), len(classifier.classes_)), np.nan)
    if is_read.any():
        proba[is_read] = classifier.head_.predict_proba(embeddings[is_read])
    labels = np.asarray(classifier.classes_)[proba.argmax(axis=1)].astype(str)
    return pa.table(
        {
            "path": chunk,
            "label": pa.array(labels, mask=~is_read),
            "probability": pa.array(proba.max(axis=1), mask=~is_read),
        }
    )


# %%
# For each chunk, the writer appends a row group.

schema = pa.schema({"path": pa.string(), "label": pa.string(), "probability": pa.float64()})
with pq.ParquetWriter("predictions.parquet", schema) as writer:
    for start in range(0, len(paths), CHUNK):
        writer.write_table(predicted_rows(paths[start : start + CHUNK]))

# %%
# Any program that reads Parquet can use the file. These are the labels with the lowest
# probabilities, which are worth checking:

table = pq.read_table("predictions.parquet")
print(f"{table.num_rows} rows, {table['label'].null_count} without a label")
for row in table.sort_by("probability").slice(0, 5).to_pylist():
    print(row)

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.hist(table["probability"].drop_null().to_numpy(), bins=20)
ax.set(xlabel="probability of the predicted label", ylabel="images", yscale="log")
plt.show()
