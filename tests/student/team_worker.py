"""One process of a training by several: a toy lesson, as JSON settings say. Run by test_distributed.py."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from stepdistill.config import ScratchConfig, StudentConfig, TrainConfig
from stepdistill.config.run import LoraConfig
from stepdistill.errors import StepdistillError
from stepdistill.records import Target
from stepdistill.student.balance import Balance
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.train import Lesson, train

SIZES = {"d_model": 16, "d_ff": 32, "heads": 2, "layers": 1, "vocabulary": 200}


def pairs(n: int) -> list[list[Target]]:
    """Sums in words, every third without a rationale."""
    made = []
    for i in range(n):
        a, b = i % 7 + 1, i % 5 + 2
        text = f"Anna has {a} apples and gets {b} more{' today' * (i % 4)}. How many?"
        targets = [Target(str(i), text, str(a + b), "label")]
        if i % 3:
            targets.append(Target(str(i), text, f"{a} and {b} more make {a + b}.", "rationale"))
        made.append(targets)
    return made


def student(settings: dict[str, Any], texts: list[str]) -> Student:
    """The same weights in every process."""
    if where := settings.get("model"):
        return load_student(where)
    scratch = ScratchConfig(**settings.get("sizes", SIZES), dropout=settings.get("dropout", 0.0))
    return new_student(StudentConfig(model="scratch:", scratch=scratch), 0, texts)


def note_lambdas(file: Path) -> None:
    """Leave the lambda of every measurement in a file of this process."""
    found: list[float] = []
    measure = Balance.measure

    def noted(balance: Balance, *given: Any) -> None:
        measure(balance, *given)
        found.append(balance.weight)
        file.write_text(json.dumps(found))

    Balance.measure = noted  # type: ignore[method-assign]


def main(folder: Path, settings: dict[str, Any]) -> None:
    """Train into `folder / s`; an error goes to stderr as one line, and its code out."""
    torch.set_num_threads(1)
    given = pairs(settings.get("n", 13))
    texts = [f"[label] [rationale] {t.source} {t.target}" for targets in given for t in targets]
    scores = iter(settings.get("scores", ()))
    plain = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
    lesson = Lesson(
        name="s",
        targets=given,
        n=len(given),
        validate=(lambda *_: next(scores)) if "scores" in settings else None,
        config=TrainConfig(**{**plain, **settings.get("train", {})}),
        seed=0,
        facts={},
        lora=LoraConfig(**settings["lora"]) if "lora" in settings else None,
    )

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        print(json.dumps([what, done, total]), flush=True)
        if what == "train s" and done == settings.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)

    if lesson.config.lambda_ == "auto":
        note_lambdas(folder / f"lambdas-{os.environ.get('RANK', 0)}.json")
    made = student(settings, texts)
    if settings.get("poison"):
        next(made.model.parameters()).data.fill_(float("nan"))
    if room := settings.get("memory"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        train(made, lesson, folder / "s", watch)
    except StepdistillError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
