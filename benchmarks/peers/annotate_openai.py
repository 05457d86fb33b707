"""One run of the plain OpenAI SDK under asyncio for `annotate.py`; it keeps nothing on disk."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from openai import AsyncOpenAI

n, flight, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


async def main() -> float:
    """Ask all prompts; seconds."""
    client, gate = AsyncOpenAI(base_url=url, api_key="none"), asyncio.Semaphore(flight)

    async def ask(i: int) -> str:
        async with gate:
            shared = {"role": "system", "content": "shared words " * 460}
            own = {"role": "user", "content": f"message number {i} about the weather"}
            done = await client.chat.completions.create(model="bench", messages=[shared, own])
            return str(done.choices[0].message.content)

    start = time.monotonic()
    answers = await asyncio.gather(*(ask(i) for i in range(n)))
    assert len(answers) == n
    return time.monotonic() - start


print(json.dumps({"seconds": asyncio.run(main())}))
