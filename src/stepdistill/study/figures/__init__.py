"""Figures of a study as functions of its result rows: the paper's Figures 4 to 9, and those beside them."""
