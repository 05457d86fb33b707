"""Writes a study folder, or a run folder, with made-up results: for tests and benchmarks only.

python tests/study/report_folder.py FOLDER --trials 12 --examples 300
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stepdistill.config.run import RunConfig
from stepdistill.evaluate.statistics import wilson

LABELS = ("approve", "deny", "ask", "escalate")
ABILITY = {"teacher": 0.80, "finetune": 0.74, "distill": 0.70, "step-by-step": 0.78}
LETTER = (
    "Policy {i} covers water and fire. The customer writes that the kitchen was under water on 3 March and "
    "that the bill of {bill} is enclosed. There were {claims} earlier claims."
)


@dataclass(frozen=True)
class MadeUp:
    """What the folder is to hold; every combination of methods, fractions, students and seeds is a trial.

    `hostile` is put into every text that a teacher, a student or the data can bring.
    """

    methods: Sequence[str] = ("finetune", "step-by-step")
    fractions: Sequence[float] = (0.25, 1.0)
    students: Sequence[int] = (820_000,)
    seeds: Sequence[int] = (0, 1, 2)
    n: int = 120
    n_train: int = 800
    task: str = "claims"
    teacher: str = "simulated"
    hostile: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    explained: int | None = None

    @cached_property
    def gold(self) -> np.ndarray[Any, Any]:
        """Indices of the gold labels."""
        return np.random.default_rng(1).integers(0, len(LABELS), self.n)

    @cached_property
    def hardness(self) -> np.ndarray[Any, Any]:
        """What all predictors find hard, so that their outcomes go together as real ones do."""
        return np.random.default_rng(2).normal(0, 1, self.n)

    def text(self, i: int) -> str:
        """The input of an example."""
        return LETTER.format(i=i, bill=100 + 7 * i % 900, claims=i % 5) + self.hostile

    def answers(self, name: str, fraction: float, size: int, seed: int) -> np.ndarray[Any, Any]:
        """Indices of the labels answered; -1 is unread."""
        draw = np.random.default_rng([len(name), int(100 * fraction), size, seed, *name.encode()])
        share = ABILITY.get(name, 0.6) - 0.12 * math.log10(1 / fraction) + 0.02 * math.log10(size / 820_000)
        right = draw.normal(0, 0.8, self.n) + self.hardness < 2.2 * (share - 0.5) / 0.5
        other = (self.gold + draw.integers(1, len(LABELS), self.n)) % len(LABELS)
        given = np.where(right, self.gold, other)
        given[(draw.random(self.n) < 0.01) & ~right] = -1
        return given


def write_study(folder: Path, made: MadeUp) -> Path:
    """Write a study folder; its trials have one arm each."""
    grid = {"methods": list(made.methods), "fractions": list(made.fractions), "seeds": list(made.seeds)}
    grid["students"] = [_student(size) for size in made.students]
    run = {"task": made.task, "teacher": {"backend": made.teacher}, "student": _student(820_000)}
    run["data"] = {"root": "/data/here/letters"}
    study = {"title": "Letters" + made.hostile, "run": run, "grid": grid, "out": "runs/letters"}
    _write(folder / "study.yaml", yaml.safe_dump(study, sort_keys=False))
    for method, fraction, size, seed in product(made.methods, made.fractions, made.students, made.seeds):
        name = f"{method}-{100 * fraction:g}-{size}-s{seed}"
        place = folder / "trials" / name
        axes = {"method": method, "fraction": fraction, "seed": seed}
        trial = {"name": name, "key": "0" * 16, "arm": method, "axes": axes}
        _write(place / "trial.yaml", yaml.safe_dump(trial))
        if name in made.failed:
            _json(place / "outcome.json", _outcome(made.failed[name]))
            continue
        write_run(place, made, (method,), fraction, size, seed)
        _json(place / "outcome.json", _outcome())
    _json(folder / "trials" / "index.json", sorted(path.name for path in folder.glob("trials/*")))
    return folder


def write_run(
    folder: Path,
    made: MadeUp,
    methods: Sequence[str],
    fraction: float = 1.0,
    size: int = 820_000,
    seed: int = 0,
) -> Path:
    """Write the folder of one run with these methods."""
    predictors = {name: made.answers(name, fraction, size, seed) for name in methods}
    predictors = {"teacher": made.answers("teacher", 1.0, 820_000, 0)} | predictors
    records = [_record(made, name, given, fraction, size, seed) for name, given in predictors.items()]
    _jsonl(folder / "results.jsonl", records)
    _jsonl(folder / "metrics.jsonl", [_metrics(made, *pair) for pair in predictors.items()])
    gold = [LABELS[index] for index in made.gold]
    with (folder / "predictions.jsonl").open("w") as file:
        for name, given in predictors.items():
            file.writelines(_predictions(made, name, gold, given))
    _jsonl(folder / "test.jsonl", (_example(made, i, label) for i, label in enumerate(gold)))
    _jsonl(folder / "explanations.jsonl", _explanations(made, predictors))
    _json(folder / "parse_report.json", _parse_report(made))
    _settings(folder, made, methods, fraction, size, seed)
    for name in methods:
        reasons = "teacher" if name.startswith("step") else None
        card = {"form": "both" if reasons else "label", "rationales": reasons, "test_rationales": "teacher"}
        _json(folder / "students" / name / "student.json", card)
    times = {f"train {name}": {"seconds": 90.0 * fraction, "peak_memory_mb": 600} for name in methods}
    times |= {f"predict {name}": {"seconds": 0.4, "peak_memory_mb": 600} for name in methods}
    _json(folder / "timings.json", times)
    return folder


def _outcome(traceback: str | None = None) -> dict[str, Any]:
    ended = {
        "status": "failed" if traceback else "done",
        "seconds": 60.0,
        "started": "2024-05-01T12:00:00+00:00",
    }
    error = traceback.strip().splitlines()[-1] if traceback else None
    return ended | {"error": error, "traceback": traceback, "exit": 1 if traceback else 0, "cost_usd": 0.8}


def _settings(
    folder: Path, made: MadeUp, methods: Sequence[str], fraction: float, size: int, seed: int
) -> None:
    values = {
        "task": made.task,
        "data": {"root": "/data/here/letters", "fraction": fraction if fraction < 1 else None},
        "teacher": {"backend": made.teacher},
        "student": _student(size),
        "methods": list(methods),
        "seed": seed,
        "out": str(folder),
    }
    config = RunConfig.model_validate(values)
    _write(folder / "config.yaml", yaml.safe_dump(config.plain(), sort_keys=False))
    _json(folder / "run.json", {**config.identity(), "(data)": "7ac8a15aa5c17d97"})


def _record(
    made: MadeUp, name: str, given: np.ndarray[Any, Any], fraction: float, size: int, seed: int
) -> dict[str, Any]:
    outcomes = np.where(given == made.gold, "1", np.where(given < 0, "-", "0"))
    right = int((given == made.gold).sum())
    low, high = wilson(right, made.n)
    card = {"metric": "accuracy", "value": right / made.n, "low": low, "high": high, "n": made.n}
    card |= {"unread": int((given < 0).sum()), "outcomes": "".join(outcomes.tolist())}
    taught = name != "teacher"
    record: dict[str, Any] = {"name": name, "task": made.task, "labels": "gold" if taught else "simulated"}
    record |= {"student": "scratch:" if taught else None, "parameters": size if taught else None}
    record |= {
        "n_train": round(made.n_train * fraction) if taught else None,
        "n_left_out": 0 if taught else None,
    }
    record |= {"validation": right / made.n - 0.01 if taught else None, "scorecard": card}
    record |= {"loss": "L_label + 1 * L_rationale" if taught else None, "precision": "float32", "seed": seed}
    record |= {"config": f"{abs(hash((fraction, size, seed))):016x}"[:16], "data": "7ac8a15aa5c17d97"}
    record |= {"annotations": "f00f" * 4, "versions": {"python": "3.11.2", "stepdistill": "0.1.0"}}
    reasons = "teacher" if name.startswith("step") else None
    return record | {"rationales": reasons, "n_rationales": None, "n_unlabelled_left_out": 0}


def _metrics(made: MadeUp, name: str, given: np.ndarray[Any, Any]) -> dict[str, Any]:
    matrix = [[int(((made.gold == g) & (given == a)).sum()) for a in (*range(4), -1)] for g in range(4)]
    per_class = {
        label: {"precision": 0.7, "recall": row[index] / max(1, sum(row)), "f1": 0.7, "support": sum(row)}
        for index, (label, row) in enumerate(zip(LABELS, matrix, strict=True))
    }
    share = float((given == made.gold).mean())
    bins = [
        {"low": b / 10, "high": b / 10 + 0.1, "n": 9, "confidence": b / 10 + 0.05, "accuracy": b / 11}
        for b in range(5, 10)
    ]
    told = {"n": made.n, "words_mean": 21.0, "words_median": 20, "consistent": 0.9, "contradicts": 0.08}
    told |= {"silent": 0.02, "chrf": 41.5 if name == "step-by-step" else None}
    kinds = {"water": {"n": made.n, "accuracy": share, "low": share - 0.05, "high": share + 0.05}}
    row: dict[str, Any] = {"name": name, "n": made.n, "accuracy": share, "macro_f1": share - 0.01}
    row |= {"per_class": per_class, "confusion": {"labels": list(LABELS), "matrix": matrix}}
    row |= {"unread_share": float((given < 0).mean()), "ece": None if name == "teacher" else 0.06}
    row |= {"reliability": None if name == "teacher" else bins}
    return row | {"rationale": told if name != "finetune" else None, "slices": {"kind": kinds}}


def _predictions(made: MadeUp, name: str, gold: Sequence[str], given: np.ndarray[Any, Any]) -> Iterable[str]:
    extra = json.dumps(made.hostile)[1:-1]
    reasons = name == "teacher"
    for i, (label, index) in enumerate(zip(gold, given.tolist(), strict=True)):
        word = f'"{LABELS[index]}"' if index >= 0 else "null"
        text = LABELS[index] if index >= 0 else "cannot say"
        told = f'"The teacher finds for letter {i} that water is covered and the papers are there.{extra}"'
        yield (
            f'{{"name": "{name}", "gold": "{label}", "example_id": "test-{i}", "text": "{text}{extra}", '
            f'"label": {word}, "reason": {"null" if index >= 0 else chr(34) + "no label" + chr(34)}, '
            f'"rationale": {told if reasons else "null"}}}\n'
        )


def _example(made: MadeUp, i: int, label: str) -> dict[str, Any]:
    row: dict[str, Any] = {"example_id": f"test-{i}", "text": made.text(i), "gold": label, "options": []}
    return row | {"rationale": None, "columns": {"kind": "water"}}


def _explanations(made: MadeUp, predictors: Mapping[str, np.ndarray[Any, Any]]) -> Iterable[dict[str, Any]]:
    for name, given in predictors.items():
        if name == "step-by-step":
            for i in range(made.n if made.explained is None else made.explained):
                told = f"The student says of letter {i} that nothing is missing.{made.hostile}"
                read = LABELS[given[i]] if given[i] >= 0 else None
                yield {"name": name, "example_id": f"test-{i}", "rationale": told, "read": read}


def _parse_report(made: MadeUp) -> dict[str, Any]:
    sample = {"id": "train-1", "text": "So the answer is deny." + made.hostile}
    return {"train": _part(made.n_train, sample), "test": _part(made.n, sample)}


def _part(n: int, sample: dict[str, str]) -> dict[str, Any]:
    return {
        "examples": n,
        "answers": n,
        "read": n - 12,
        "unread": {"no marker": 9, "cut by the token limit": 3},
        "rules": {"whole": n - 40, "first label": 28},
        "unread_examples": {"no marker": [sample]},
        "rule_examples": {"whole": [{**sample, "label": "deny"}]},
        "accuracy": {
            "whole": {"right": (n - 40) * 4 // 5, "n": n - 40},
            "first label": {"right": 15, "n": 28},
        },
    }


def _student(size: int) -> dict[str, Any]:
    width = 8 * max(1, round(math.sqrt(size / 50) / 8))
    return {"model": "scratch:", "scratch": {"d_model": width, "d_ff": 2 * width, "heads": 4, "layers": 2}}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


def _json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value))


def _jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    write_study(given.folder, MadeUp(n=given.examples, seeds=range(given.seeds)))
