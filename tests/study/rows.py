"""Result rows and metrics as a study would have them, made up: the same arguments give the same rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from stepdistill.evaluate.statistics import wilson
from stepdistill.files import digest
from stepdistill.study.results import ResultRow

LABELS = {"finetune": "gold", "distill": "teacher", "step-by-step": "gold"}
SIZES = {"tiny": 100_000, "small": 5_000_000, "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008}


def outcomes(accuracy: float, n: int, seed: object, unread: float = 0.0) -> str:
    """Outcomes of a predictor: the same examples are hard for all that share the first part of `seed`."""
    chance = random.Random(repr(seed))
    right = round(accuracy * n)
    letters = ["1"] * right + ["-" if chance.random() < unread else "0" for _ in range(n - right)]
    chance.shuffle(letters)
    return "".join(letters)


def row(**changes: Any) -> ResultRow:
    """A row with what is given changed; interval, n and unread follow from `outcomes`."""
    values: dict[str, Any] = {
        "trial": "t",
        "name": "step-by-step",
        "task": "claims",
        "labels": LABELS.get(changes.get("name", "step-by-step"), "gold"),
        "rationales": None if changes.get("name") in ("finetune", "distill") else "teacher",
        "lambda_": None if changes.get("name") in ("finetune", "distill") else 1.0,
        "teacher": "oracle",
        "student": "small",
        "fraction": 1.0,
        "n_train": 1000,
        "seed": 0,
        "outcomes": outcomes(0.7, 200, 0),
        "validation": 0.7,
        "train_seconds": 120.0,
        "predict_seconds": 4.0,
        "peak_memory_mb": 900.0,
        "cost_usd": 1.5,
        "data": "d" * 16,
        "test": "e" * 16,
        **changes,
    }
    answers = values["outcomes"]
    n, right = len(answers), answers.count("1")
    low, high = wilson(right, n)
    values = {"value": right / n, "low": low, "high": high, "n": n, "unread": answers.count("-"), **values}
    values.setdefault("parameters", SIZES.get(values["student"] or "", 5_000_000))
    values.setdefault("config", digest(repr(sorted(values.items(), key=lambda item: item[0]))))
    return ResultRow(**values)


def teacher(**changes: Any) -> ResultRow:
    """A teacher's row."""
    alone = dict.fromkeys(
        ("rationales", "lambda_", "student", "parameters", "fraction", "n_train", "seed", "validation")
    )
    unknown = dict.fromkeys(("train_seconds", "predict_seconds", "peak_memory_mb", "cost_usd"))
    given = {"name": "teacher", "labels": "oracle-1", "outcomes": outcomes(0.8, 200, "teacher"), **changes}
    return row(**{**alone, **unknown, **given})


def study(
    methods: Sequence[str] = ("finetune", "step-by-step"),
    fractions: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] = ("claims",),
    students: Sequence[str] = ("small",),
    n: int = 200,
    **changes: Any,
) -> list[ResultRow]:
    """The rows of a grid with its teachers; accuracy grows with data and size, and by method."""
    found = []
    for task in tasks:
        found.append(teacher(task=task, test=digest(task), outcomes=outcomes(0.8, n, (task, "teacher"))))
        for student in students:
            for name in methods:
                for fraction in fractions:
                    for seed in seeds:
                        place = (task, student, name, fraction, seed)
                        gain = 0.04 * list(methods).index(name) + 0.03 * list(students).index(student)
                        accuracy = (
                            0.75 + gain - 0.09 * fraction**-0.5 + random.Random(repr(place)).gauss(0, 0.01)
                        )
                        found.append(
                            row(
                                trial="-".join(map(str, place)).replace("/", "_"),
                                name=name,
                                task=task,
                                student=student,
                                fraction=fraction,
                                n_train=round(fraction * 1000),
                                seed=seed,
                                outcomes=outcomes(min(0.97, max(0.05, accuracy)), n, place, unread=0.1),
                                test=digest(task),
                                train_seconds=30 + 300 * fraction + SIZES[student] / 1e6,
                                cost_usd=2.0 * fraction,
                                **changes,
                            )
                        )
    return found


def metrics(name: str, labels: Sequence[str], n: int = 200, seed: int = 0) -> dict[str, Any]:
    """A line of `metrics.jsonl` with a confusion matrix and a reliability diagram."""
    chance = random.Random(repr((name, len(labels), seed)))
    matrix = [[0] * (len(labels) + 1) for _ in labels]
    for _ in range(n):
        gold = chance.randrange(len(labels))
        read = gold if chance.random() < 0.7 else chance.randrange(len(labels) + 1)
        matrix[gold][read] += 1
    right = sum(matrix[place][place] for place in range(len(labels)))
    return {
        "name": name,
        "n": n,
        "accuracy": right / n,
        "ece": 0.07,
        "confusion": {"labels": list(labels), "matrix": matrix},
        "reliability": [
            {"low": k / 10, "high": (k + 1) / 10, "n": 4 * k, "confidence": k / 10 + 0.06, "accuracy": k / 10}
            for k in range(4, 10)
        ],
    }
