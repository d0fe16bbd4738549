"""Digests of graphs, code and content, which make embeddings comparable."""
