"""MEASURE: predictions and what they are worth."""
