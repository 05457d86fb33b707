"""Which of a task's demonstrations stand in the prompt of an example."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from stepdistill.config import DemonstrationConfig
from stepdistill.errors import ConfigError
from stepdistill.records import Demonstration, Example
from stepdistill.task.load import Task

OWN_CHOICE = 8
"""Demonstrations of a prompt that chooses its own, where `n` is not given and the task has as many."""

Pick = Callable[[Example, Sequence[int]], Sequence[int]]
"""Positions chosen for an example out of those allowed, in the order of the prompt."""


class Choice:
    """The demonstrations of each example, made by `choose`.

    Attributes:
        shared: those of every example, where they do not depend on it; else None.
    """

    def __init__(self, pool: Sequence[Demonstration], pick: Pick | None) -> None:
        self._pool = tuple(pool)
        self._inputs = [_plain(demonstration.text) for demonstration in self._pool]
        self._openings = frozenset(_opening(demonstration.text) for demonstration in self._pool)
        self._pick = pick
        self.shared = self._pool if pick is None else None

    def __call__(self, example: Example) -> tuple[Demonstration, ...]:
        """The demonstrations for one example: the very tuple `shared`, or a choice of its own.

        A demonstration with the example's own input, up to white space, is left out: its answer would
        be copied. So there can be fewer than asked for, even none.
        """
        # Nearly all examples are told apart by their first words; the whole of a letter costs more.
        if self.shared is not None and _opening(example.text) not in self._openings:
            return self.shared
        asked = _plain(example.text)
        if self.shared is not None and asked not in self._inputs:
            return self.shared
        allowed = [i for i, text in enumerate(self._inputs) if text != asked]
        chosen = self._pick(example, allowed) if self._pick else allowed
        return tuple(self._pool[i] for i in chosen)


def choose(task: Task, config: DemonstrationConfig, seed: int) -> Choice:
    """Choose demonstrations of a task as the run file says; labels are in their canonical form.

    `fixed` takes the first n, or all. `balanced` takes n with as equal a number of each label as can
    be, or, without n, as many as there are of every label; seeded, the same for every example.
    `random` takes n for each example by seed and id, whatever the order of the examples; `nearest`
    takes the n whose inputs are most like the example's, the most similar last, next to the
    question. Without n, these two take 8, or all where the task has fewer.

    Raises:
        ConfigError: the task has none, or fewer than n, or is not of a kind that can be balanced.
    """
    pool = list(task.demonstrations())
    if not pool:
        raise ConfigError(
            f"{task.spec.name}: the task has no demonstrations to show in a prompt; add some to the task "
            "file, or use `prompt: zero-shot`"
        )
    if config.n is not None and config.n > len(pool):
        raise ConfigError(
            f"demonstrations.n: {config.n} given and the task '{task.spec.name}' has {len(pool)}; lower n "
            "or add some to the task file"
        )
    if config.choose == "fixed":
        return Choice(pool[: config.n], None)
    if config.choose == "balanced":
        return Choice(_balanced(task, pool, config.n, seed), None)
    n = config.n or min(len(pool), OWN_CHOICE)
    return Choice(pool, _at_random(n, seed) if config.choose == "random" else _nearest(pool, n))


def _balanced(task: Task, pool: Sequence[Demonstration], n: int | None, seed: int) -> list[Demonstration]:
    kind = task.spec.answer.kind
    if kind != "label":
        raise ConfigError(
            f"demonstrations.choose: 'balanced' needs a closed set of labels and the answers of "
            f"'{task.spec.name}' are of kind '{kind}'; choose fixed, random or nearest"
        )
    chance = random.Random(f"balanced demonstrations {seed}")  # noqa: S311 - no secret
    piles: dict[str, list[Demonstration]] = {}
    for demonstration in chance.sample(pool, len(pool)):
        piles.setdefault(demonstration.label, []).append(demonstration)
    total = n or len(piles) * min(len(pile) for pile in piles.values())
    chosen: list[Demonstration] = []
    while len(chosen) < total:
        # Each round is shuffled, or the order of the labels would be a pattern to be copied.
        round_ = [pile.pop() for pile in piles.values() if pile][: total - len(chosen)]
        chosen += chance.sample(round_, len(round_))
    return chosen


def _at_random(n: int, seed: int) -> Pick:
    def pick(example: Example, allowed: Sequence[int]) -> Sequence[int]:
        # In ASCII, because a generator cannot be seeded with a lone surrogate.
        chance = random.Random(f"demonstrations {seed} {example.id!a}")  # noqa: S311 - no secret
        return chance.sample(allowed, min(n, len(allowed)))

    return pick


def _nearest(pool: Sequence[Demonstration], n: int) -> Pick:
    """By the cosines of TF-IDF over words and word pairs, and over pieces of words, added up."""
    # Imported here: it takes seconds, and most prompts have no need of it.
    from sklearn.feature_extraction import text

    inputs = [demonstration.text for demonstration in pool]
    if not any(words.strip() for words in inputs):
        raise ConfigError("demonstrations.choose: 'nearest' and the inputs of the demonstrations are empty")
    # Signs count as words: a text of signs alone would leave nothing to compare.
    words = text.TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)
    pieces = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    views = [(view, view.fit_transform(inputs)) for view in (words, pieces)]

    def pick(example: Example, allowed: Sequence[int]) -> Sequence[int]:
        likeness = sum((shown @ view.transform([example.text]).T).toarray()[:, 0] for view, shown in views)
        return sorted(allowed, key=lambda i: (-likeness[i], i))[:n][::-1]

    return pick


def _plain(text: str) -> str:
    return " ".join(text.split())


def _opening(text: str) -> tuple[str, ...]:
    return tuple(text.split(None, 8)[:8])
