"""The command line: one file a verb, each a thin door to the function that does the work."""
