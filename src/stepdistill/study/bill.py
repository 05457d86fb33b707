"""What the teacher's answers on a run's examples cost: all of them for training, and one by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepdistill.study.grid import matters_teacher
from stepdistill.study.job import Job
from stepdistill.teacher.asked import AskedTeacher, Pair, Stage, chunks
from stepdistill.teacher.entry import Entry
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import FREE_OF_CHARGE, NANO


def cost_usd(job: Job) -> float | None:
    """US dollars for the answers on the training examples, as the ledger has them, each counted once.

    0 where no arm learns from the teacher, or its answers are recorded, simulated or this machine's own;
    None where the price of an answer is not known.
    """
    learns = any(matters_teacher(arm, job.config) for arm in job.methods)
    paid = [one for one in job.config.asked if one.modelled and one.backend not in FREE_OF_CHARGE]
    if not learns or not paid or "train" not in job.asked.splits:
        return 0.0
    costs: dict[bytes, int | None] = {}
    with Ledger(job.ledger) as ledger:
        for config in paid:
            teacher = AskedTeacher(job.task, config, job.config.seed, ledger)
            for part in chunks(("train", example) for example in job.streams["train"]):
                costs |= {entry.slot: entry.cost for _, entry in _found(teacher, part, teacher.stages())}
    known = [cost for cost in costs.values() if cost is not None]
    return sum(known) / NANO if len(known) == len(costs) else None


def answer_usd(job: Job) -> float | None:
    """US dollars for the first paid teacher's answer to one example, on average over all that it answered.

    Of several draws and of two stages all count, hints do not: a new text has no gold label to tell. None
    where nobody was paid, nothing is in the ledger, or the price of an answer is not known.
    """
    paid = [one for one in job.config.asked if one.modelled and one.backend not in FREE_OF_CHARGE]
    if not paid or not job.ledger.exists():
        return None
    total, answered = 0, set()
    with Ledger(job.ledger) as ledger:
        teacher = AskedTeacher(job.task, paid[0], job.config.seed, ledger)
        stages = teacher.stages()[: 1 if paid[0].prompt == "hinted" else None]
        for part in chunks(job.asked.stream()):
            splits = {example.id: split for split, example in part}
            for example_id, entry in _found(teacher, part, stages):
                if entry.cost is None:
                    return None
                total += entry.cost
                answered.add((splits[example_id], example_id))
    return total / NANO / len(answered) if answered else None


def _found(
    teacher: AskedTeacher, part: Sequence[Pair], stages: Sequence[tuple[str, Stage]]
) -> Iterator[tuple[str, Entry]]:
    """The ledger's answers to some examples, each with the id of its example."""
    for _, stage in stages:
        wanted = list(stage(part))
        entries = teacher.find([(prompt, draw) for _, prompt, draw in wanted])
        for (example_id, _, _), entry in zip(wanted, entries, strict=True):
            if entry is not None:
                yield example_id, entry
