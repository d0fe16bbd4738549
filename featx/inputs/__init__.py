"""What a person passes as ``X``: order, identity and pixels of samples."""
