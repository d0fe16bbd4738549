"""Probes: linear, nearest-neighbor and nearest-mean heads that try many settings at once.

With the embeddings cached, most of the time goes into tuning the heads: the protocols of the field
use dozens of strengths (Kornblith et al. 2019, arXiv 1805.08974) or several numbers of neighbors.
The probes compute once what all settings and all folds share.
"""
