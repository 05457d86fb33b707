"""Serve: a student behind HTTP, many requests in one forward pass."""
