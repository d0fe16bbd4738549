"""Heads by the protocols of the field, which try a path of settings at about the price of one.

With the embeddings cached, the heads are what users wait for, and the protocols ask for dozens of
strengths (Kornblith et al. 2019, arXiv 1805.08974) or several numbers of neighbours. What all
settings and all folds share is computed once here.
"""
