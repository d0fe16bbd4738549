"""The pass: what the cache lacks goes through the frozen network, once."""
