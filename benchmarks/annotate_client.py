"""One run of ours for `annotate.py`: prompts with a shared part of about 1,500 tokens."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

TASK = {
    "name": "bench",
    "instruction": "Say which team a message belongs to, with reasons. " * 12,
    "input": "{message}",
    "id": "id",
    "answer": {"kind": "label", "labels": ["billing", "technical", "other"], "marker": "So the answer is"},
    "data": {"files": {"train": "train.jsonl"}},
    "demonstrations": [
        {
            "row": {"message": f"Message {i}: " + "the app closes when I open the camera and " * 4},
            "rationale": "The writer describes a crash, so someone has to look at the software. " * 4,
            "label": ("billing", "technical", "other")[i % 3],
        }
        for i in range(10)
    ],
}


def main() -> None:
    """Annotate `n` prompts and print what it took, as JSON."""
    n, flight, url, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    with (folder / "train.jsonl").open("w") as file:
        for i in range(n):
            file.write(json.dumps({"id": f"m{i}", "message": f"message number {i} about the weather"}) + "\n")
    (folder / "task.yaml").write_text(json.dumps(TASK))
    from stepdistill.config import RunConfig
    from stepdistill.study.job import Job

    seen: list[float] = []  # when the first prompt may be sent, and when each answer was durable

    def watch(what: str, done: int, total: int, note: str = "", /) -> None:
        if what.startswith("ask"):
            seen.append(time.monotonic())

    config = RunConfig.model_validate(
        {
            "task": str(folder / "task.yaml"),
            "teacher": {
                "backend": "openai", "model": "bench", "base_url": url,
                "price": {"input": 1, "output": 1}, "limits": {"concurrency": flight}, "max_tokens": 512,
            },
            "student": {"model": "scratch:"},
            "out": str(folder / "runs" / "bench"),
        }
    )  # fmt: skip
    job = Job(config, watch)
    job.open()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    outcome = job.annotate()
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    assert outcome.tally.answered == n, outcome.tally
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    asking = seen[-1] - seen[0]
    print(
        json.dumps(
            {
                "seconds": asking,
                "seconds_with_reading": seconds,
                "cpu_microseconds_per_request": 1e6 * cpu / n,
                "peak_memory_mb": peak_memory(),
            }
        )
    )


def peak_memory() -> float:
    """Peak resident memory of this process; `ru_maxrss` would include the parent's before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main()
