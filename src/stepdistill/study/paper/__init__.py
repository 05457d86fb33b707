"""The paper: its studies as files, its numbers, and ours judged beside them."""
