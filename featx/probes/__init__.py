"""Linear, nearest-neighbour and nearest-mean heads that try many settings at the price of one.

With the embeddings cached, most of the time goes into tuning the heads: the protocols of the field
ask for dozens of strengths (Kornblith et al. 2019, arXiv 1805.08974) or several numbers of
neighbours. What all settings and all folds share is computed once here.
"""
