"""The scripted teacher, public as a test double, and the simulated one of the quickstart."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from stepdistill.errors import ConfigError, TeacherError
from stepdistill.records import Completion, Example
from stepdistill.task import claims
from stepdistill.task.load import Task


class ScriptedTeacher:
    """A teacher that answers from a table; it calls nothing.

    >>> ScriptedTeacher({"7": "Reasons. So the answer is no."}).complete([Example("7", "?")])[0].text
    'Reasons. So the answer is no.'
    """

    def __init__(self, answers: Mapping[str, str], model: str = "scripted") -> None:
        self.answers = dict(answers)
        self.model = model

    def complete(self, examples: Sequence[Example]) -> list[Completion]:
        """Completions in the order of the examples.

        Raises:
            TeacherError: an example is not in the table.
        """
        missing = [e.id for e in examples if e.id not in self.answers]
        if missing:
            raise TeacherError(f"the scripted teacher has no answer for {', '.join(missing[:3])}")
        return [Completion(e.id, self.answers[e.id], self.model) for e in examples]


def simulated_teacher(task: Task, error_rate: float, seed: int) -> ScriptedTeacher:
    """A SIMULATION of an LLM on the generator's letters: it knows the facts, and errs on purpose.

    In a share `error_rate` of the letters it misreads one fact, and its rationale and label follow
    from the misreading, as a real teacher's wrong answers do. The paper's PaLM-540B is wrong on 26 %
    of SVAMP; hence the default of 25 %.

    Raises:
        ConfigError: the task is not made by a generator, so nothing is known about its examples.
    """
    generator = task.spec.data.generator
    if generator is None:
        raise ConfigError(
            f"teacher.backend: 'simulated' knows only generated data; the task '{task.spec.name}' is "
            "real: use 'recorded'"
        )
    letters = claims.letters(sum(generator.sizes.values()), generator.seed)
    chance = random.Random(f"simulated teacher {generator.seed} {seed}")  # noqa: S311 - no secret
    answers, index = {}, 0
    for split, size in generator.sizes.items():
        for number in range(size):
            facts = letters[index].facts
            if chance.random() < error_rate:
                facts = chance.choice(claims.misreadings(facts))
            answers[f"{split}-{number}"] = task.show(claims.rationale(facts), claims.decide(facts))
            index += 1
    return ScriptedTeacher(answers, model="simulated")
