"""Export: a student in the form of another library, proven before it is called done."""
