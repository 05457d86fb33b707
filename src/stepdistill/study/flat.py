"""Annotation in growing parts, until the next is not expected to be worth its price: `--until-flat`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepdistill.config import RunConfig
from stepdistill.errors import ConfigError, DataError, RunFolderError
from stepdistill.files import write_json
from stepdistill.student.methods import Arm
from stepdistill.study.bill import cost_usd
from stepdistill.study.grid import matters_teacher
from stepdistill.study.job import Job

if TYPE_CHECKING:
    from stepdistill.evaluate.bootstrap import Interval

UNTIL_FLAT = "until_flat.json"
FOLDER = "flat"
"""Folder of the parts' runs, in the run's folder."""
FIRST = 100
"""Examples of the first part, where a sixteenth of all is more."""
PARTS = 5
"""The fewest parts: one more than a stop needs, so that there is something to save."""
IN_A_ROW = 2
"""Decisions against the next part that end annotation; one alone is chance too often."""
_CONTROLS = ("shuffled", "filler")


@dataclass(frozen=True, slots=True)
class Step:
    """One part: what was measured with it, and what was decided.

    Attributes:
        n, fraction: annotated examples; share of all.
        accuracy, low, high: on validation, with the 95 % Wilson interval, as shares.
        cost_usd: of the answers on all n examples; None where unknown.
        next_n: size of the next part; after the last one, twice its size.
        gain: expected of it, as a share; None before there are three points, or while nothing is learned.
        stop: this gain and the one before it are both too little.
        why: the decision, in words.
    """

    n: int
    fraction: float
    accuracy: float
    low: float
    high: float
    cost_usd: float | None
    next_n: int
    gain: Interval | None
    stop: bool
    why: str


@dataclass(frozen=True, slots=True)
class Flat:
    """How far annotation went, and why it ended there.

    Attributes:
        method: the arm whose student was measured.
        gain_wanted: the least gain of a part that is worth paying, as a share.
        total: number of training examples.
        curve: of the last fit, acc(n) = a - b (n / scale)^-c; None where there was none.
        rest_usd: what the answers on the rest would have cost, at the same price each; None where unknown.
    """

    method: str
    gain_wanted: float
    total: int
    steps: tuple[Step, ...]
    curve: dict[str, float] | None
    spent_usd: float | None
    rest_usd: float | None

    @property
    def stopped(self) -> bool:
        """Whether the curve is flat, seen twice; otherwise no part was left, or work is still going on."""
        return self.steps[-1].stop


def sizes(total: int) -> list[int]:
    """Numbers of examples of the parts: doubled from 100, or from a sixteenth where that is less.

    >>> sizes(1700), sizes(48)
    ([100, 200, 400, 800, 1600, 1700], [3, 6, 12, 24, 48])
    """
    first = min(FIRST, max(1, total // 2 ** (PARTS - 1)))
    found = [first]
    while 2 * found[-1] < total:
        found.append(2 * found[-1])
    return [*found, total]


def share(n: int, total: int) -> float:
    """The shortest fraction whose part of `total` examples has n.

    >>> share(100, 1500), share(1500, 1500)
    (0.067, 1.0)
    """
    exact = n / total
    short = (round(exact, digits) for digits in range(1, 16))
    return next((f for f in short if 0 < f <= 1 and round(f * total) == n), exact)


def judge(
    outcomes: Mapping[int, str], next_n: int, wanted: float, floor: float
) -> tuple[Interval | None, str]:
    """What the next part is expected to gain, and in words whether that is enough; None: not known yet.

    The power law through the points (`evaluate.learning.fit`) says it. The estimate itself decides, and not
    the upper end of its interval: one seed on a few hundred examples leaves several points open on both
    sides, so that end would have everything annotated. The estimate leans towards too little, as no fitted
    curve falls and none ends above 1: one of them alone ends nothing (`stops`). It needs three points, and
    the last student must be better than `floor` beyond chance: one that has not begun to learn gives a flat
    curve, too.

    Args:
        outcomes: number of examples -> outcomes on validation, the same examples each time.
        next_n: size of the next part.
        wanted: the least gain that is worth it, as a share.
        floor: accuracy of always giving the most frequent label.
    """
    from stepdistill.evaluate.learning import SIZES, fit
    from stepdistill.evaluate.statistics import wilson

    if len(outcomes) < SIZES:
        return None, f"a curve needs {SIZES} points"
    last = outcomes[max(outcomes)]
    if wilson(last.count("1"), len(last))[0] <= floor:
        return None, f"not above {100 * floor:.1f} %, the most frequent label: nothing is learned yet"
    found = fit({n: [text] for n, text in outcomes.items()}).gain(max(outcomes), next_n)
    below = "below" if found.value < wanted else "not below"
    return found, f"expected gain {below} {100 * wanted:g} points"


def stops(gains: Sequence[Interval | None], wanted: float) -> bool:
    """Whether annotation ends: the last two parts were each expected to gain less than `wanted`.

    >>> from stepdistill.evaluate.bootstrap import Interval
    >>> little = Interval(0.001, 0.0, 0.03)
    >>> stops([None, None, little], 0.005), stops([None, None, little, little], 0.005)
    (False, True)
    """
    last = gains[-IN_A_ROW:]
    return len(last) == IN_A_ROW and all(gain is not None and gain.value < wanted for gain in last)


def annotate_until_flat(job: Job, wanted: float) -> Iterator[Flat]:
    """Annotate part after part, train on each; stop where the next ones are expected to gain too little.

    Parts nest (`data.fraction`); their answers go to the run's ledger, so that no later run pays them
    again. Only training examples are annotated, only validation is measured. Each part's run stays in
    `OUT/flat/`, so an interrupted call goes on where it was. Gives the state after every part, as it is
    written to `OUT/until_flat.json`.

    Args:
        job: opened.
        wanted: the least gain in accuracy that is worth the next part, as a share.

    Raises:
        ConfigError: no method uses the teacher's answers, or `data.fraction` is given.
        DataError: no validation examples, or too few training examples.
        RunFolderError: the run has been annotated already.
        StepdistillError: as of a run.
    """
    arm, total = check_flat(job), len(job.streams["train"])
    labels = [e.label for e in job.streams["validation"] if e.label is not None]
    floor = Counter(labels).most_common(1)[0][1] / len(labels)
    steps: list[Step] = []
    outcomes: dict[int, str] = {}
    parts = sizes(total)
    for place, n in enumerate(parts):
        measured, cost = _measure(job, arm, n, share(n, total))
        outcomes[n] = measured
        next_n = parts[place + 1] if place + 1 < len(parts) else 2 * n
        steps.append(
            _step(outcomes, [step.gain for step in steps], cost, (share(n, total), next_n, wanted, floor))
        )
        flat = _flat(arm.name, wanted, total, steps, outcomes)
        write_json(job.folder.path / UNTIL_FLAT, {**asdict(flat), "stopped": flat.stopped})
        yield flat
        if flat.stopped:
            return


def check_flat(job: Job) -> Arm:
    """The method that is measured: the last that learns from the teacher, and is asked without rationales.

    Controls are not meant.

    Raises:
        StepdistillError: as `annotate_until_flat`; nothing has been done then.
    """
    config, name = job.config, job.task.spec.name
    if config.data.fraction is not None:
        raise ConfigError("--until-flat: it finds data.fraction itself; leave the key out")
    arms = [arm for arm in job.methods if matters_teacher(arm, config) and arm.source not in _CONTROLS]
    arms = [arm for arm in arms if arm.method.form != "rationale-input"]
    if not arms:
        raise ConfigError(
            f"--until-flat: none of the methods ({', '.join(config.methods)}) shows what the teacher's "
            "answers are worth; add step-by-step or distill"
        )
    if not any(example.label is not None for example in job.streams.get("validation", ())):
        raise DataError(
            f"{name}: --until-flat measures on validation, and there are no labelled 'validation' examples; "
            "name a split of them in the task file"
        )
    if "train" not in config.annotate.splits:
        raise ConfigError("--until-flat: annotate.splits lacks train, so nothing is to be annotated; add it")
    if (n := len(job.streams.get("train", ()))) < 2 ** (PARTS - 1):
        raise DataError(f"{name}: {n} training examples are too few for --until-flat; annotate them all")
    if job.folder.annotations.exists():
        raise RunFolderError(
            f"{job.folder.annotations}: this run is annotated already; --until-flat goes before that, in "
            "another `out`"
        )
    return arms[-1]


def _measure(job: Job, arm: Arm, n: int, fraction: float) -> tuple[str, float | None]:
    """Outcomes on validation of a student of the first part of n examples, and what its answers cost."""
    from stepdistill.study.run import Run
    from stepdistill.study.validation import measure_validation

    run = Run(_part(job, arm, n, fraction), job.watch, tally=job.tally)
    run.open()
    run.annotate()
    run.train()
    return measure_validation(run).outcomes, cost_usd(run)


def _part(job: Job, arm: Arm, n: int, fraction: float) -> RunConfig:
    config = job.config
    data = config.data.model_copy(update={"fraction": None if fraction == 1 else fraction})
    asked = config.annotate.model_copy(update={"splits": ("train",), "ledger": str(job.ledger)})
    out = str(Path(job.folder.path) / FOLDER / f"{n:07d}")
    return config.model_copy(update={"data": data, "annotate": asked, "methods": (arm.name,), "out": out})


def _step(
    outcomes: Mapping[int, str],
    before: Sequence[Interval | None],
    cost: float | None,
    given: tuple[float, int, float, float],
) -> Step:
    from stepdistill.evaluate.statistics import wilson

    n, (fraction, next_n, wanted, floor) = max(outcomes), given
    right, of = outcomes[n].count("1"), len(outcomes[n])
    low, high = wilson(right, of)
    gain, why = judge(outcomes, next_n, wanted, floor)
    stop = stops([*before, gain], wanted)
    if gain is not None and gain.value < wanted:
        why += ", twice in a row" if stop else "; one such estimate ends nothing"
    return Step(n, fraction, right / of, low, high, cost, next_n, gain, stop, why)


def _flat(method: str, wanted: float, total: int, steps: Sequence[Step], outcomes: Mapping[int, str]) -> Flat:
    from stepdistill.evaluate.learning import SIZES, fit

    last, curve = steps[-1], None
    if len(outcomes) >= SIZES:
        found = fit({n: [text] for n, text in outcomes.items()})
        curve = {"a": found.a, "b": found.b, "c": found.c, "scale": found.scale}
    rest = None if last.cost_usd is None else last.cost_usd / last.n * (total - last.n)
    return Flat(method, wanted, total, tuple(steps), curve, last.cost_usd, rest)
