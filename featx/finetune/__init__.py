"""Fine-tuning: the top of a backbone is trained with Keras, starting from a fitted head."""
