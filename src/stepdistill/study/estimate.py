"""How long a trial will take and how much memory it needs: from finished trials, else from sizes."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from stepdistill.config import RunConfig, StudentConfig
from stepdistill.student.methods import find_arm
from stepdistill.study import slots
from stepdistill.study.folder import RunFolder
from stepdistill.study.grid import SCRATCH, Trial
from stepdistill.study.trial import read_outcome
from stepdistill.task.load import load_task, stream_examples

FIXED_SECONDS = 3.0
"""What a trial takes beside training: reading, hashing, writing."""
_BYTES = 16
"""Of each weight in training: itself, its gradient and two moments, in float32."""
_FREE_BYTES = 700_000_000
"""Of a process that has imported torch, and of small activations."""
_ANSWER, _RATIONALE = 4, 60
"""Usual lengths in tokens, as characters are a quarter of a token each."""
_SHARE = 0.4
"""What training reaches of the speed of a bare product of matrices."""
_NAMED = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", re.IGNORECASE)
_UNKNOWN = 100_000_000
_T5 = {"small": 77e6, "base": 248e6, "large": 783e6, "xl": 2.85e9, "xxl": 11.1e9}


def parameters(student: StudentConfig) -> int | None:
    """Number of weights, from the student's sizes, name or files; None where they do not tell."""
    if student.model == SCRATCH:
        size = student.scratch
        ff, square = 3 * size.d_model * size.d_ff, size.d_model**2
        return size.vocabulary * size.d_model + size.layers * (12 * square + 2 * ff)
    name = student.model.rstrip("/").rsplit("/", 1)[-1]
    if found := _NAMED.search(name.replace("_", "-")):
        return round(float(found[1]) * (1e9 if found[2].upper() == "B" else 1e6))
    if "t5" in name.lower() and (kind := name.lower().rsplit("-", 1)[-1]) in _T5:
        return round(_T5[kind])
    files = sorted(Path(student.model).expanduser().glob("*.safetensors"))
    return sum(map(_weights, files)) or None


def _weights(path: Path) -> int:
    """Number of weights in a safetensors file, by its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        count = 0 if name == "__metadata__" else 1
        for length in tensor.get("shape", ()):
            count *= length
        total += count
    return total


@dataclass
class Memory:
    """Bytes that a trial needs at its peak: the most that finished ones of its student took, else a guess."""

    peaks: dict[str, int] = field(default_factory=dict)

    def learn(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        noted = RunFolder(trial.folder).times().values()
        peak = max((round(times.get("peak_memory_mb", 0) * 1e6) for times in noted), default=0)
        name = trial.axes["student"]
        self.peaks[name] = max(peak, self.peaks.get(name, 0))

    def needed(self, trial: Trial) -> int:
        """What to expect of a trial."""
        seen = self.peaks.get(trial.axes["student"])
        return seen or _FREE_BYTES + _BYTES * (parameters(trial.config.student) or 0)


@dataclass(frozen=True)
class _Sizes:
    """Number of examples by split, and mean characters of a training input."""

    examples: Mapping[str, int]
    characters: float


def work(trials: Iterable[Trial]) -> dict[str, float]:
    """Floating-point operations of each trial, by name, roughly: 6 for each weight and token trained on.

    Reads the data of each task once. A student of unknown size counts as one of `_UNKNOWN` weights.
    """
    known: dict[str, _Sizes] = {}
    found: dict[str, float] = {}
    for trial in trials:
        data = trial.config.data.model_copy(update={"fraction": None, "fraction_seed": None})
        place = f"{trial.config.task} {data.model_dump_json()}"
        if place not in known:
            streams = stream_examples(load_task(trial.config.task), data)
            mean = fmean(len(example.text) for example in streams["train"])
            known[place] = _Sizes({split: len(rows) for split, rows in streams.items()}, mean)
        found[trial.name] = 6 * _passed(trial.config.student) * _tokens(trial.config, known[place])
    return found


def _passed(student: StudentConfig) -> float:
    """Weights that a token meets on its way: of an encoder-decoder either half, and no embeddings."""
    known = parameters(student) or _UNKNOWN
    if student.model == SCRATCH:
        return (known - student.scratch.vocabulary * student.scratch.d_model) / 2
    return known / 2 if "t5" in student.model.lower() else known


def _tokens(config: RunConfig, sizes: _Sizes) -> float:
    """Tokens gone through, those that are only answered at a third: they have no backward pass."""
    train, arm = config.train, find_arm(config.methods[0], config.train.rationales)
    n = max(1, round((config.data.fraction or 1) * sizes.examples["train"]))
    seen = train.steps * train.batch_size if train.steps else train.epochs * n
    source = sizes.characters / 4 + _ANSWER
    each = source + (_RATIONALE if arm.source not in (None, "none") else 0)
    if arm.method.form == "both":
        each += source / 2  # of some students the input is read once for both tasks
    rounds = seen / (train.evaluate_every * train.batch_size) if train.evaluate_every else seen / n
    answered = sizes.examples.get("test", 0) + rounds * sizes.examples.get("validation", 0)
    return seen * each + answered * source / 3


@dataclass
class Clock:
    """Expects seconds of trials by their work.

    The speed is that of finished ones of the same student, else that of this machine: what slows a small
    student down, as reading and writing, says nothing of a large one.

    Args:
        work: what `work` gives of all trials.
        seconds: of finished trials, without what all take, by student and name.
    """

    work: Mapping[str, float]
    seconds: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def learn(self, trial: Trial) -> None:
        """Take note of a finished trial: its training over all sessions, and the rest."""
        outcome, folder = read_outcome(trial.folder), RunFolder(trial.folder)
        cost = folder.cost(trial.arm)
        own = (cost["train_seconds"] or 0) + (cost["predict_seconds"] or 0) + FIXED_SECONDS
        whole = max(own, outcome.seconds if outcome else 0)
        self.seconds[trial.axes["student"]][trial.name] = max(0.0, whole - FIXED_SECONDS)

    def knows(self, trial: Trial) -> bool:
        """Whether one of the same student has finished."""
        return trial.axes["student"] in self.seconds

    def expect(self, trial: Trial, speed: float | None = None) -> float | None:
        """Seconds; None where nothing is known: none of the student has finished and no speed is given."""
        if self.knows(trial):
            known = self.seconds[trial.axes["student"]]
            done = sum(self.work[name] for name in known)
            return self.work[trial.name] * sum(known.values()) / done + FIXED_SECONDS
        return self.work[trial.name] / speed + FIXED_SECONDS if speed else None

    def left(
        self, trials: Sequence[Trial], jobs: int, spent: Mapping[str, float], speed: float | None = None
    ) -> float | None:
        """Seconds until these trials are done, `jobs` at a time; `spent` of some, by name, are over."""
        each = []
        for trial in trials:
            seconds = self.expect(trial, speed)
            if seconds is None:
                return None
            each.append(max(0.0, seconds - spent.get(trial.name, 0.0)))
        return max(sum(each) / min(jobs, max(1, len(each))), max(each, default=0.0))


def machine_speed(threads: int) -> float | None:
    """Operations a second of training on this machine's CPU, measured in a moment; None with a GPU."""
    if any(os.path.exists(path) for path in slots.GPUS):
        return None
    import numpy as np

    square = np.ones((512, 512), dtype=np.float32)
    square @ square
    start, rounds = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < 0.1:
        square @ square
        rounds += 1
    used = slots.given_threads() or os.cpu_count() or 1
    return _SHARE * 2 * 512**3 * rounds / passed / used * threads
