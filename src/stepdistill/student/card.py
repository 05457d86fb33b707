"""The card of a trained student: the file that says what it is."""

CARD = "student.json"
"""Written last into a student's folder; what `stepdistill predict` needs to know."""
