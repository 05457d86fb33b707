"""Many answers to one example become one annotation: draws vote, teachers are combined, gold is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from stepdistill.config import AnnotateConfig
from stepdistill.records import Annotation, Example, Unparsed

Same = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer of one teacher: the words, and what was read of them."""

    teacher: str
    model: str
    draw: int
    words: str
    read: Annotation | Unparsed
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What an example's answers come to.

    `source` is the answer that label and first rationale are taken from. `left_out` says why nothing
    of it is trained on; None where it is.
    """

    read: Annotation | Unparsed
    source: Heard
    left_out: str | None = None


def settle(heard: Sequence[Heard], example: Example, same: Same, config: AnnotateConfig) -> Settled:
    """One annotation out of at least one answer, given in the order of teachers and draws.

    Hinted answers, which were told the gold label, do not vote: one that leads to the gold label gives
    its rationale where the vote is wrong or empty (STaR, Zelikman et al. 2022).
    """
    free = [one for one in heard if not one.hinted]
    settled = COMBINE[config.combine](free, same, config.keep)
    if example.label is None:
        return settled
    if config.verify == "agree-with-gold":
        settled = _only_agreeing(settled, free, example.label, same)
    for one in heard:
        is_right = isinstance(one.read, Annotation) and same(one.read.label, example.label)
        if one.hinted and is_right and not _agrees(settled.read, example.label, same):
            assert isinstance(one.read, Annotation)
            share = sum(_agrees(free_one.read, example.label, same) for free_one in free) / max(len(free), 1)
            return Settled(replace(one.read, rule=f"hinted: {one.read.rule}", confidence=share), one)
    return settled


def _only_agreeing(settled: Settled, heard: Sequence[Heard], gold: str, same: Same) -> Settled:
    """The same without further rationales that argue for another label than the gold one."""
    if isinstance(settled.read, Unparsed):
        return settled
    right = {_read(one).rationale for one in heard if _agrees(one.read, gold, same)}
    more = tuple(text for text in settled.read.more if text in right)
    return replace(settled, read=replace(settled.read, more=more))


def verified(settled: Settled, example: Example, same: Same, config: AnnotateConfig) -> Settled:
    """The same, with the reason why it is left out of training, if it is."""
    read = settled.read
    if isinstance(read, Unparsed):
        return replace(settled, left_out=f"unread: {read.reason}")
    if config.verify == "majority" and read.confidence <= 0.5 and not settled.source.hinted:
        return replace(settled, left_out="no majority")
    unlike = example.label is not None and not same(read.label, example.label)
    if config.verify == "agree-with-gold" and unlike:
        return replace(settled, left_out="disagrees with gold")
    return settled


def vote(heard: Sequence[Heard], same: Same, keep: str) -> Settled:
    """The label that most answers have; of equally many, the one that was said first.

    `confidence` is its share of all answers, those that could not be read included.
    """
    groups: list[list[Heard]] = []
    for one in heard:
        if isinstance(one.read, Annotation):
            home = next((g for g in groups if same(_read(g[0]).label, one.read.label)), None)
            groups.append([one]) if home is None else home.append(one)
    if not groups:
        return Settled(heard[0].read, heard[0])
    winners = max(groups, key=len)
    first = next((one for one in winners if _read(one).rationale), winners[0])
    said = [one for group in groups for one in group] if keep == "all" else winners
    return _merged(first, said if keep != "one" else [first], len(winners) / len(heard))


def _first(heard: Sequence[Heard], same: Same, keep: str) -> Settled:
    """The first teacher of whom anything could be read."""
    votes = _by_teacher(heard, same, keep)
    return next((v for v in votes if isinstance(v.read, Annotation)), votes[0])


def _all(heard: Sequence[Heard], same: Same, keep: str) -> Settled:
    """One vote for each teacher, and every teacher's rationales, also those of the outvoted."""
    votes = _by_teacher(heard, same, keep)
    whole = vote([replace(v.source, read=v.read) for v in votes], same, "voted")
    if isinstance(whole.read, Unparsed):
        return whole
    reads = [v.read for v in votes if isinstance(v.read, Annotation)]
    texts = [text for read in reads for text in (read.rationale, *read.more)]
    return replace(whole, read=replace(whole.read, more=_others(whole.read.rationale, texts)))


COMBINE: dict[str, Callable[[Sequence[Heard], Same, str], Settled]] = {
    "first": _first,
    "vote": vote,
    "all": _all,
}
"""How several teachers become one, by `annotate.combine`."""


def _by_teacher(heard: Sequence[Heard], same: Same, keep: str) -> list[Settled]:
    return [vote(list(part), same, keep) for _, part in groupby(heard, key=lambda one: one.teacher)]


def _merged(first: Heard, said: Sequence[Heard], share: float) -> Settled:
    read = _read(first)
    more = _others(read.rationale, [_read(one).rationale for one in said])
    return Settled(replace(read, confidence=share, more=more), first)


def _others(first: str, texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in dict.fromkeys(texts) if text and text != first)


def _read(one: Heard) -> Annotation:
    assert isinstance(one.read, Annotation)
    return one.read


def _agrees(read: Annotation | Unparsed, gold: str, same: Same) -> bool:
    return isinstance(read, Annotation) and same(read.label, gold)
