"""SERVER: a student behind HTTP, with batches shared by requests, limits, a key and counters."""
