"""The trial of an export: asked beside the trained checkpoint, tuned, and judged by the numbers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from stepdistill.deploy.bundle import Readout, Settings
from stepdistill.deploy.coverage import Point, cost_per_1000
from stepdistill.deploy.export.contest import Side, contest
from stepdistill.deploy.export.job import Exam, Source
from stepdistill.deploy.export.proof import accuracy, agreement, bound, shortfall, speed
from stepdistill.deploy.export.tuning import Target, Tuning, gradable, tune
from stepdistill.deploy.runtime import load
from stepdistill.errors import ConfigError
from stepdistill.files import read_text
from stepdistill.records import Prediction, Watcher
from stepdistill.study.folder import RunFolder

_LIBRARIES = ("torch", "transformers", "tokenizers", "ctranslate2", "onnxruntime", "xllamacpp")
_CHUNK = 64
"""Examples of which scores are asked at once."""
_CPU = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Sides:
    """Where the two lie, and how many threads each has."""

    checkpoint: Path
    export: Path
    threads: int


@dataclass(frozen=True)
class Judged:
    """The numbers, how the export is to answer, and what it lacks to be proven: nothing where it is."""

    proof: dict[str, Any]
    tuning: Tuning
    lacks: str


def judge(
    source: Source, sides: Sides, questions: Exam, precision: str, target: Target, watch: Watcher
) -> Judged:
    """Ask both, in turns, under the settings that the export's own scores on validation give.

    Raises:
        ConfigError: no threshold reaches the target.
        StudentError: one of them cannot be asked.
    """
    with ExitStack() as stack:
        trained, exported = (
            stack.enter_context(Side(name, where, sides.threads))
            for name, where in (("trained checkpoint", sides.checkpoint), ("export", sides.export))
        )
        tuning = _tuned(source, exported, questions, target, watch)
        for side in (trained, exported):
            # A threshold changes which answers are given, and none of the answers.
            side.settle(tuning.settings.model_copy(update={"threshold": None}))
        answers = contest((trained, exported), questions.examples, watch)
        measured = [
            _measured(source, questions, side, found)
            for side, found in zip((trained, exported), answers, strict=True)
        ]
    found = agreement(source.task.kind, *answers)
    low, high = found.interval
    proof = {
        "n": found.n,
        "n_validation": len(questions.validation),
        "n_validation_of": questions.of,
        "topped_up": len(questions.added),
        "agreement": found.share,
        "agreement_low": low,
        "agreement_high": high,
        "bound": bound(precision),
        "checkpoint": measured[0],
        "export": measured[1],
        "free_text": _free_text(source),
        "machine": machine(sides.threads),
        "versions": _versions(),
        "seed": questions.seed,
    }
    return Judged(proof, tuning, shortfall(found, precision))


def _tuned(source: Source, exported: Side, questions: Exam, target: Target, watch: Watcher) -> Tuning:
    """Readout, temperature and threshold; as they are by default where nothing is scored, or none is gold."""
    runtime = load(source.student)
    if not runtime.closed:
        return Tuning(Settings())
    candidates = [runtime.candidates(example) for example in questions.validation]
    places = gradable(questions.validation, candidates)
    if not places and target.wanted:
        raise ConfigError(
            "no validation example has a gold label, so no threshold can be chosen; leave it out"
        )
    if not places:
        return Tuning(Settings())
    chosen = [questions.validation[place] for place in places]
    rows: dict[Readout, list[list[float]]] = {}
    for begin in range(0, len(chosen), _CHUNK):
        part: Mapping[Any, list[list[float]]] = exported.scores(chosen[begin : begin + _CHUNK])
        for readout, found in part.items():
            rows.setdefault(readout, []).extend(found)
        watch("calibrate", min(begin + _CHUNK, len(chosen)), len(chosen))
    gold = [candidates[place].index(str(questions.validation[place].label)) for place in places]
    return tune(rows, gold, target)


def _measured(source: Source, questions: Exam, side: Side, answers: Sequence[Prediction]) -> dict[str, Any]:
    n = len(questions.validation)
    return {
        **accuracy(source.task.kind, questions.validation, answers[:n]),
        **speed(side.clock),
        "peak_memory_bytes": side.memory,
        "computes": side.computes,
    }


def described(tuning: Tuning, usd: float | None) -> dict[str, Any]:
    """The tuning, as the proof has it; `usd` is the teacher's price of an answer."""
    threshold = None
    if tuning.point is not None:
        threshold = {**_row(tuning.point, usd), "assured": tuning.point.assured}
    return {
        "calibration": tuning.calibration,
        "coverage": [_row(point, usd) for point in tuning.curve],
        "threshold": threshold,
    }


def _row(point: Point, usd: float | None) -> dict[str, Any]:
    cost = None if usd is None else cost_per_1000(point, usd)
    return {**asdict(point), "usd_per_1000": cost}


def _free_text(source: Source) -> dict[str, Any]:
    """What the run measured before the export, of answers in free text: on validation, and once on test."""
    record = RunFolder(source.run).records().get(str(source.card["name"]))
    card = None if record is None else record.scorecard
    test = None if card is None else {"accuracy": card.value, "low": card.low, "high": card.high, "n": card.n}
    return {"validation": source.card["validation"], "test": test}


def threads_here() -> int:
    """How many threads each side has by default: as OMP_NUM_THREADS says, else all cores of this process."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    able = getattr(os, "sched_getaffinity", None)
    return len(able(0)) if able else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """What a measurement of speed is of."""
    lines = read_text(_CPU).splitlines() if _CPU.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
