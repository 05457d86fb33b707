"""Run a configuration in forked children that are killed at their k-th step on the disk.

Between two such steps nothing on the disk changes for good, so killing at each of them reaches every
state that a SIGKILL can leave. Prints a JSON line a case. Not a test by itself: see test_kill.py.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stepdistill.config import load_run
from stepdistill.records import unwatched
from stepdistill.study.run import Run

STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")


def work(file: Path, out: Path) -> None:
    """A whole run, as `stepdistill run` does it."""
    torch.set_num_threads(1)
    run = Run(load_run(file, [f"out={out}"]), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()


def arm(kill_at: int, counter: Path) -> None:
    """Make the k-th disk step of this process its last one; count them otherwise."""
    steps = 0

    def armed(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if kill_at == 0:
                counter.write_bytes(str(steps).encode())
            return original(*args, **kwargs)

        return step

    for name in STEPS:
        if name != "open":  # `counter` itself is opened
            setattr(os, name, armed(getattr(os, name)))


def child(file: Path, out: Path, kill_at: int, counter: Path) -> int:
    """Run in a forked process; the signal that ended it, or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            if kill_at >= 0:
                arm(kill_at, counter)
            work(file, out)
        except BaseException as error:  # noqa: BLE001
            print(f"child: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the child failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def facts(out: Path) -> dict[str, str]:
    """What must be equal after any interruption."""
    files = ["results.jsonl", "predictions.jsonl", "annotations.jsonl"]
    files += ["metrics.jsonl", "explanations.jsonl", "test.jsonl", "../test_reads.jsonl"]
    models = sorted(str(p.relative_to(out)) for p in out.glob("students/*/model.safetensors"))
    left = sorted(p.name for p in (out / "students").iterdir() if p.name.startswith("."))
    hashes = {name: hash_of(out / name) for name in [*files, *models]}
    return {**hashes, "left over": " ".join(left)}


def hash_of(path: Path) -> str:
    """Hash of a file's bytes."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(file: Path, home: Path, cases: int, seed: int) -> None:
    """Undisturbed once; then `cases` runs, each killed once at a step, and started again."""
    counter = home / "steps"
    assert child(file, home / "whole" / "out", 0, counter) == 0
    total = int(counter.read_text())
    expected = facts(home / "whole" / "out")
    chance = random.Random(seed)
    # One in every stretch of the run, at a random place of the stretch.
    points = [1 + (i * total + chance.randrange(total)) // cases for i in range(cases)]
    for point in points:
        # In a folder of its own: beside the whole run, it would read test a second time.
        out = home / "killed" / "out"
        killed = child(file, out, min(point, total), counter)
        stages = [p.name for p in out.glob("students/[!.]*")] if out.exists() else []
        child(file, out, -1, counter)
        found = facts(out)
        wrong = [name for name in expected if found.get(name) != expected[name]]
        print(json.dumps({"step": point, "of": total, "signal": killed, "had": stages, "wrong": wrong}))
        shutil.rmtree(out.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
