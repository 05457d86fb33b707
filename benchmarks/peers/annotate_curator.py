"""One run of bespokelabs-curator for `annotate.py`: the same prompts, end to end."""

from __future__ import annotations

import json
import sys
import tempfile
import time

from bespokelabs import curator
from datasets import Dataset


class Ask(curator.LLM):
    """A chat prompt with a shared part of about 1,500 tokens."""

    def prompt(self, row):
        """The messages of a row."""
        return [{"role": "system", "content": "shared words " * 460}, {"role": "user", "content": row["q"]}]

    def parse(self, row, response):
        """Keep the words."""
        return {"q": row["q"], "a": response}


n, flight, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
limits = {
    "max_requests_per_minute": 10**8,
    "max_tokens_per_minute": 10**12,
    "max_concurrent_requests": flight,
}
teacher = Ask(model_name="gpt-4o-mini", backend="openai", backend_params={"base_url": url, **limits})
data = Dataset.from_list([{"q": f"message number {i} about the weather"} for i in range(n)])
start = time.monotonic()
found = teacher(data, working_dir=tempfile.mkdtemp())
seconds = time.monotonic() - start
rows = found.dataset if hasattr(found, "dataset") else found
assert len(rows) == n, len(rows)
print(json.dumps({"seconds": seconds}))
