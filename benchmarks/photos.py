"""The photos and the network that benchmarks of searches share: found, decoded, built plainly.

Photos of flowers, dogs and cats from the shared data sets if these are at hand, else scikit-learn's
digits; MobileNetV2 (alpha 0.35) at its own 224 pixels, with random weights, which cost the same,
where its weight file is missing.
"""

import time
from pathlib import Path

import numpy as np

SIZE = 224
ALPHA = 0.35
BATCH_SIZE = 32
_WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
_FOLDERS = ("flower_photos/train", "flower_photos/val", "dogs_cats")


def find_photos(shared, work, n_photos):
    """Return the paths of photos, and their labels."""
    from featx import load_image_folder
    from featx.cli.demo import write_digits

    if shared.is_dir():
        sets = [load_image_folder(shared.resolve() / "data" / folder) for folder in _FOLDERS]
    else:
        write_digits(work / "digits")
        sets = [load_image_folder(work / "digits")]
    paths = np.concatenate([s.data for s in sets])
    labels = np.concatenate([s.target for s in sets])
    chosen = np.sort(np.random.default_rng(0).permutation(len(paths))[:n_photos])
    return paths[chosen], labels[chosen]


def distinct_photos(shared, work, n_photos):
    """Return the paths of so many JPEGs: natural ones with a few bytes of their own each."""
    from featx import load_image_folder

    folders = [shared.resolve() / "data" / name for name in ("flower_photos", "dogs_cats")]
    paths = [
        str(path) for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.jpg"))
    ]
    if not paths:
        from featx.cli.demo import write_digits

        write_digits(work / "digits")
        paths = list(load_image_folder(work / "digits").data)
    copies = work / f"photos-{n_photos}"
    copies.mkdir(exist_ok=True)
    written = []
    for number in range(n_photos):
        source = Path(paths[number % len(paths)])
        copy = copies / f"{number:06}{source.suffix}"
        copy.write_bytes(source.read_bytes() + number.to_bytes(8, "big"))
        written.append(str(copy))
    time.sleep(3)  # files that changed a moment ago are not trusted
    return written


def find_weights(shared):
    """Return the weight file, if it is at hand."""
    file = shared / "weights" / _WEIGHTS
    return file.resolve() if file.is_file() else None


def decoded(paths):
    """Decode and resize photos, in a thread for each core, as featx does."""
    import joblib
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
    from PIL import Image

    lanczos = ResizeOptions(ResizeAlg.convolution(FilterType.lanczos3))

    def pixels(path):
        with Image.open(path) as image:
            resized = Image.new("RGB", (SIZE, SIZE))
            Resizer().resize_pil(image.convert("RGB"), resized, lanczos)
        return np.asarray(resized)

    in_threads = joblib.Parallel(n_jobs=joblib.cpu_count(), backend="threading")
    return np.stack(in_threads(joblib.delayed(pixels)(path) for path in paths))


def plain_network(weights, layers=(None,), poolings=("avg",)):
    """Build the network with preprocessing and pooling, as a user of Keras would."""
    import keras

    pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    base = keras.applications.MobileNetV2(
        alpha=ALPHA, include_top=False, weights=weights, input_shape=(SIZE, SIZE, 3)
    )
    base.trainable = False
    tops = [base.get_layer(layer).output if layer else base.output for layer in layers]
    several = keras.Model(base.input, tops)
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    tapped = several(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    outputs = [pool[name]()(each) for each in keras.tree.flatten(tapped) for name in poolings]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def compiled_pass(model, images):
    """Run images through a compiled function; return the float64 matrix of each output."""
    import keras
    import tensorflow as tf

    function = tf.function(lambda batch: model(batch, training=False))
    padding = (-len(images)) % BATCH_SIZE
    padded = np.concatenate([images, images[:1].repeat(padding, axis=0)])
    batches = [padded[i : i + BATCH_SIZE] for i in range(0, len(padded), BATCH_SIZE)]
    rows = [
        [part.numpy() for part in keras.tree.flatten(function(tf.constant(batch)))]
        for batch in batches
    ]
    matrices = [np.concatenate(parts)[: len(images)] for parts in zip(*rows, strict=True)]
    return [matrix.astype(np.float64) for matrix in matrices]
