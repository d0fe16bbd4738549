"""What makes two embeddings comparable: digests of graphs, code and content."""
