"""What must hold before anything is trained: every text fits, and labels can be written and told apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError, brief
from stepdistill.records import TaskName
from stepdistill.student.encode import TASKS, Branch, Encoder, Item
from stepdistill.student.methods import MARKERS, with_rationale
from stepdistill.weights import Family

Bound = Literal["input", "target", "positions"]

_SHOWN = 3
_ARTICLE: dict[str, str] = {"input": "an", "target": "a"}
_REMEDY: dict[Bound, str] = {
    "input": "raise train.max_input_tokens",
    "target": "raise train.max_target_tokens",
    "positions": "take a student with more positions",
}


@dataclass
class Excess:
    """The examples that are over one bound: how many, the longest in tokens, and the first ids."""

    count: int = 0
    longest: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, length: int) -> None:
        """Count one example."""
        self.count += 1
        self.longest = max(self.longest, length)
        if len(self.first) < _SHOWN:
            self.first.append(name)


@dataclass
class Found:
    """What went through a sieve so far; its size does not grow with the data."""

    seen: int = 0
    kept: int = 0
    labels: int = 0
    unknown: int = 0
    rationales_seen: bool = False
    rationales_kept: int = 0
    over: dict[Bound, Excess] = field(default_factory=dict)
    new_tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """Lets pass what fits and counts what does not; never cuts.

    Sift first, then `check`. `positions` is how many tokens the model can place, where it says so: of
    input, marker and target together for a causal model, of the input and of marker and target each for
    an encoder-decoder. `unknown` is the id of the tokenizer's sign for what it lacks, and `marks` are the
    ids of the tasks' markers, which part label and rationale where one target has both. `found` grows while
    `sift` is read.
    """

    max_input: int
    max_target: int
    positions: int | None
    family: Family
    policy: Literal["error", "drop"] = "error"
    unknown: int | None = None
    marks: tuple[tuple[int, ...], ...] = ()
    found: Found = field(default_factory=Found, compare=False)

    def sift(self, items: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
        """Of examples with their ids, those that fit, in one pass; the rest is counted.

        An example goes as a whole: without its rationale it would be another method's example.
        """
        for name, item in items:
            over = {what: size for what, size in self._sizes(item).items() if size > self._bound(what)}
            branches = [branch for row in item for branch in row.branches]
            self.found.seen += 1
            self.found.rationales_seen |= any(branch.task == "rationale" for branch in branches)
            for what, size in over.items():
                self.found.over.setdefault(what, Excess()).add(name, size)
            if not over:
                self._keep(branches)
                yield name, item

    def check(self) -> None:
        """Refuse, once all was sifted, what cannot be trained as asked.

        Raises:
            StudentError: a text is too long and the policy is "error", nothing is left, no rationale is
                left, or the tokenizer lacks words of labels.
        """
        found = self.found
        if found.over and self.policy == "error":
            remedies = [_REMEDY[what] for what in found.over]
            raise StudentError(
                f"{self._excess()}; {', '.join(remedies)}, or leave such examples out (train.too_long: drop)"
            )
        if not found.kept:
            cause = f": {self._excess()}" if found.over else ""
            raise StudentError(
                f"no training example is left of {found.seen}{cause}; raise the limits or shorten the texts"
            )
        if found.rationales_seen and not found.rationales_kept:
            raise StudentError(
                f"no example with a rationale is left: {self._excess()}; without any, it would be finetuning "
                "under another name. Raise the limits or shorten the texts"
            )
        if found.unknown:
            raise StudentError(
                f"{found.unknown} of {found.labels} labels have words or signs that the student's tokenizer "
                "does not know; take another student, or for `scratch:` raise student.scratch.vocabulary"
            )

    def report(self) -> dict[str, Any]:
        """The counts, for the student's card: of examples, and of those over each bound."""
        over = {
            what: {
                "limit": self._bound(what),
                "count": excess.count,
                "longest": excess.longest,
                "first": list(excess.first),
            }
            for what, excess in self.found.over.items()
        }
        return {"seen": self.found.seen, "left_out": self.found.seen - self.found.kept, "over": over}

    @property
    def note(self) -> str | None:
        """One line on what was left out, to be shown; None where everything fits."""
        left_out = self.found.seen - self.found.kept
        return f"left out {left_out} of {self.found.seen} examples: {self._excess()}" if left_out else None

    @property
    def new_tokens(self) -> dict[str, int]:
        """How many tokens a prediction of each task may have: a quarter more than any target, and 4."""
        return dict(self.found.new_tokens)

    def _keep(self, branches: list[Branch]) -> None:
        found = self.found
        found.kept += 1
        for branch in branches:
            room = len(branch.target) * 5 // 4 + 4
            if self.positions and self.family != "causal":
                room = min(room, self.positions - len(branch.opening))
            found.new_tokens[branch.task] = max(found.new_tokens.get(branch.task, 0), room)
            found.rationales_kept += branch.task == "rationale"
            if branch.task == "label":
                found.labels += 1
                found.unknown += self._lacks(branch.target)

    def _lacks(self, target: list[int]) -> bool:
        """Whether the tokenizer lacks words of the label; a student can do without a rationale's."""
        if self.unknown is None or self.unknown not in target:
            return False
        return self.unknown in (label_part(target, *self.marks) if self.marks else target)

    def _sizes(self, item: Item) -> dict[Bound, int]:
        """The example's longest input and target, and the most positions that it needs."""
        pairs = [(row, branch) for row in item for branch in row.branches]
        placed = [
            placed_tokens(self.family, len(row.source), len(b.opening), len(b.target)) for row, b in pairs
        ]
        return {
            "input": max((len(row.source) for row in item), default=0),
            "target": max((len(branch.target) for _, branch in pairs), default=0),
            "positions": max(placed, default=0),
        }

    def _bound(self, what: Bound) -> float:
        if what == "positions":
            return self.positions or float("inf")
        return self.max_input if what == "input" else self.max_target

    def _excess(self) -> str:
        return "; ".join(self._said(what, excess) for what, excess in self.found.over.items())

    def _said(self, what: Bound, excess: Excess) -> str:
        if what == "positions":
            both = " for input and answer" if self.family == "causal" else ""
            more = f"need more than the model's {self.positions} positions{both}"
        else:
            more = f"have {_ARTICLE[what]} {what} of more than {self._bound(what):g} tokens"
        ids = ", ".join(map(brief, excess.first)) + (", …" if excess.count > _SHOWN else "")
        return (
            f"{excess.count} of {self.found.seen} examples {more} (the longest: {excess.longest}; ids: {ids})"
        )


def limits_of(encoder: Encoder, config: TrainConfig, model: Any) -> Limits:
    """The limits of a run file for one student; `model` is transformers' model."""
    unknown = encoder.tokenizer.unk_token_id
    return Limits(
        max_input=config.max_input_tokens,
        max_target=config.max_target_tokens,
        positions=getattr(model.config, "max_position_embeddings", None),
        family=encoder.family,
        policy=config.too_long,
        # GPT-2 and its kin have one sign for "unknown" and "end", and know every word.
        unknown=None if unknown == encoder.tokenizer.eos_token_id else unknown,
        marks=tuple(tuple(encoder.target(MARKERS[task])[:-1]) for task in TASKS),
    )


def check_asked(encoder: Encoder, texts: Iterable[str], limits: Limits, reasons_first: bool = False) -> None:
    """As `check_inputs`, of all tasks that were sifted; `reasons_first`: it answers given its own reasons."""
    inputs, rooms = list(texts), {"rationale": 0, **limits.new_tokens}
    check_inputs(encoder, inputs, rooms["label"], limits, "label", rooms["rationale"] * reasons_first)
    if rooms["rationale"]:
        check_inputs(encoder, inputs, rooms["rationale"], limits, "rationale")


def check_inputs(
    encoder: Encoder,
    texts: Iterable[str],
    new_tokens: int,
    limits: Limits,
    task: TaskName = "label",
    reason: int = 0,
) -> None:
    """Refuse, before training, what could not be asked after it; nothing that is measured is left out.

    Args:
        encoder: the student's.
        texts: inputs without markers.
        new_tokens: how many tokens an answer may have.
        limits: those of the training.
        task: what will be asked.
        reason: most tokens of a rationale that will stand in the input, behind its marker.

    Raises:
        StudentError: an input is longer than allowed, or leaves the model no room for an answer.
    """
    opening, bound = len(encoder.opening(task)), limits.positions or float("inf")
    total = over = longest = most = 0
    for text in texts:
        whole = with_rationale(text, "") if reason else text
        length = len(encoder.source(whole, task)) + reason
        total, over, longest = total + 1, over + (length > limits.max_input), max(longest, length)
        most = max(most, placed_tokens(encoder.family, length, opening, new_tokens))
    own = f", {reason} of them for a rationale of its own" if reason else ""
    if over:
        raise StudentError(
            f"{over} of {total} inputs to be answered have more than {limits.max_input} tokens (the longest "
            f"has {longest}{own}); raise train.max_input_tokens, or shorten the texts"
        )
    if total and most > bound:
        raise StudentError(
            f"the model has {limits.positions} positions and the longest input to be answered needs {most} "
            f"with {new_tokens} for its answer{own}; shorten the texts or take another student"
        )


def check_label_set(encoder: Encoder, labels: Iterable[str]) -> None:
    """Refuse a closed set of labels of which the student could not tell two apart.

    Raises:
        StudentError: two labels are the same tokens.
    """
    seen: dict[tuple[int, ...], str] = {}
    for label in labels:
        ids = tuple(encoder.target(label))
        other = seen.setdefault(ids, label)
        if other != label:
            raise StudentError(
                f"the labels {brief(other)} and {brief(label)} are the same tokens to the student's "
                "tokenizer; rename one, take another student, or for `scratch:` raise "
                "student.scratch.vocabulary"
            )


def label_part(target: list[int], label: Sequence[int], rationale: Sequence[int]) -> list[int]:
    """The label in a target that may have a rationale before or behind it, given the ids of the markers.

    >>> label_part([5, 6, 8, 7, 1], label=[8], rationale=[9]), label_part([7, 9, 5, 1], [8], [9])
    ([7, 1], [7])
    """
    starts = [i + len(label) for i in range(len(target)) if tuple(target[i : i + len(label)]) == tuple(label)]
    ends = [i for i in range(len(target)) if tuple(target[i : i + len(rationale)]) == tuple(rationale)]
    return target[starts[-1] if starts else 0 : None if starts or not ends else ends[0]]


def placed_tokens(family: Family, source: int, opening: int, target: int) -> int:
    """How many positions a model needs for an input and what is written behind it, lengths in tokens.

    The last token of a target is only predicted, and never stands at a position; an encoder-decoder
    has a start token on the decoder's side in its place.

    >>> placed_tokens("causal", 10, 2, 3), placed_tokens("encoder-decoder", 10, 2, 3)
    (14, 10)
    """
    written = opening + target
    return source + written - 1 if family == "causal" else max(source, written)
