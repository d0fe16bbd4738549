"""What every test starts from."""

import os

# TensorFlow switches oneDNN on by itself on CPUs with AVX-512 only. Without it, it computes no
# channels-first convolution on a CPU, which some tests need, and rounds otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
