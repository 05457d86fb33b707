"""TRAIN: the student - methods, encoding, loss, loading, training, generation."""
