"""What the teacher's answers on a run's training examples cost."""

from __future__ import annotations

from stepdistill.study.grid import matters_teacher
from stepdistill.study.job import Job
from stepdistill.teacher.asked import AskedTeacher, chunks
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
                for _, stage in teacher.stages():
                    found = teacher.find([(prompt, draw) for _, prompt, draw in stage(part)])
                    costs |= {entry.slot: entry.cost for entry in found if entry is not None}
    known = [cost for cost in costs.values() if cost is not None]
    return sum(known) / NANO if len(known) == len(costs) else None
