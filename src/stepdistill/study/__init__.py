"""COMPARE: runs that put methods side by side."""
