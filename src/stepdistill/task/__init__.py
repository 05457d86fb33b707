"""ASK: what is asked - task files, data sources, answer kinds, built-in tasks."""
