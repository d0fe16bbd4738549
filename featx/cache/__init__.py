"""The cache of embeddings, from its public interface down to the bytes on disk."""
