"""Linear heads that try a path of strengths at about the price of one.

With the embeddings cached, the heads are what users wait for, and the field's protocol asks for
dozens of strengths (Kornblith et al. 2019, arXiv 1805.08974). What all strengths and all folds
share is computed once here.
"""
