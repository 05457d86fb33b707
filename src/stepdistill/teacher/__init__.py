"""ANNOTATE: the teacher's completions, read into rationales and labels."""
