"""Fine-tuning: from the head that was fitted to a backbone whose top was trained with Keras."""
