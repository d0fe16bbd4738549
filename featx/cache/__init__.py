"""The cache of embeddings, from what a person sees of it down to the bytes on disk."""
