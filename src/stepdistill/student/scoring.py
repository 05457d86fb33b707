"""How likely a student finds each answer of a closed set: teacher-forced, an input read once for all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from stepdistill.records import TaskName, Watcher, unwatched
from stepdistill.student.branches import branch_mask, can_branch, lay_out, logits_at
from stepdistill.student.encode import Branch, Row
from stepdistill.student.generate import check_positions, in_batches, write
from stepdistill.student.model import Student
from stepdistill.student.padding import IGNORED, pad_right
from stepdistill.weights import decoder_start

Ids = Sequence[int]
_TASK: TaskName = "label"
_AT_ONCE = 64
"""Rows of a decoder up to which all targets are one call; with more, copies of what it has read cost more
than calls."""
_REFUSAL = (
    "not enough memory to answer one input at a time and to measure how sure the student is of each label; "
    "free memory, shorten the texts, or give evaluate.probabilities: false"
)


def answers_with_probabilities(
    student: Student,
    texts: Sequence[str],
    labels: Sequence[str],
    new_tokens: int,
    batch_size: int = 32,
    watch: Watcher = unwatched,
) -> list[tuple[str, tuple[float, ...]]]:
    """As `generate` answers with a label, and beside each answer the probability of every label.

    These are the softmax over the labels of log p(label, end | `[label]` text). An encoder reads each
    input once for both, so that they cost little beside the answer.

    Raises:
        StudentError: as `generate`.
    """
    encoder, opening = student.encoder, student.encoder.opening(_TASK)
    sources = [encoder.source(text, _TASK) for text in texts]
    targets = [encoder.target(label) for label in labels]
    most = max([new_tokens, *map(len, targets)])
    check_positions(student, max(map(len, sources), default=0), len(opening), most)

    def work(places: list[int]) -> list[tuple[str, tuple[float, ...]]]:
        chosen = [sources[place] for place in places]
        read = read_inputs(student, chosen)
        answers = write(student, chosen, opening, new_tokens, read=read)
        spelled = spell(student, chosen, opening, [targets] * len(chosen), read)
        shares = [_softmax([math.fsum(tokens) for tokens in row]) for row in spelled]
        return list(zip(answers, shares, strict=True))

    with torch.inference_mode():
        return in_batches(student, list(map(len, sources)), work, _REFUSAL, batch_size, watch)


def read_inputs(student: Student, sources: Sequence[Ids]) -> BaseModelOutput | None:
    """What an encoder makes of a batch; None of a causal model."""
    if student.family == "causal":
        return None
    ids = pad_right(sources, int(student.tokenizer.pad_token_id)).to(student.model.device)
    found = student.model.get_encoder()(input_ids=ids, attention_mask=_mask(student, sources))
    return BaseModelOutput(last_hidden_state=found.last_hidden_state)


def first_step(student: Student, sources: Sequence[Ids], opening: Ids) -> Tensor:
    """log p(token | source, opening) in nats of every token of the vocabulary: (sources, vocabulary)."""
    model = student.model
    if student.family == "causal":
        prompts = [[*source, *opening] for source in sources]
        ids = pad_right(prompts, int(student.tokenizer.pad_token_id)).to(model.device)
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[range(len(prompts)), [len(prompt) - 1 for prompt in prompts]] = True
        with logits_at(model, last):
            found = model(input_ids=ids, attention_mask=_mask(student, prompts), use_cache=False).logits
        return _log_probabilities(found)
    return _decoder_step(student, sources, opening, read_inputs(student, sources), None)


def spell(
    student: Student,
    sources: Sequence[Ids],
    opening: Ids,
    targets: Sequence[Sequence[Ids]],
    read: BaseModelOutput | None = None,
) -> list[list[list[float]]]:
    """log p of every token of every target in nats, teacher-forced: (sources, targets, tokens).

    Args:
        student: in evaluation mode.
        sources: ids of inputs, as in training.
        opening: ids between input and target; not scored.
        targets: what is scored behind each source.
        read: what `read_inputs` gave, where somebody else has need of it too.
    """
    if student.family == "causal":
        return _causal(student, sources, opening, targets)
    return _pair(student, sources, opening, targets, read or read_inputs(student, sources))


def _softmax(scores: Sequence[float]) -> tuple[float, ...]:
    shares = [math.exp(score - max(scores)) for score in scores]
    return tuple(share / sum(shares) for share in shares)


def _mask(student: Student, sources: Sequence[Ids]) -> Tensor:
    return pad_right([[1] * len(source) for source in sources], 0).to(student.model.device)


def _decoder_step(student: Student, sources: Sequence[Ids], opening: Ids, read: Any, cache: Any) -> Tensor:
    """What the decoder expects behind the opening; what it has read of it stays in the cache."""
    model = student.model
    fed = torch.tensor([[decoder_start(model), *opening]] * len(sources), device=model.device)
    logits = model(
        encoder_outputs=read,
        attention_mask=_mask(student, sources),
        decoder_input_ids=fed,
        cache=cache,
        use_cache=cache is not None,
    ).logits
    return _log_probabilities(logits[:, -1])


def _pair(
    student: Student, sources: Sequence[Ids], opening: Ids, targets: Sequence[Sequence[Ids]], read: Any
) -> list[list[list[float]]]:
    """What the decoder needs of the encoder is made once; then a short step of the decoder for the targets.

    All targets are one step, as a batch, where the batch stays small; else each is a step of its own.
    """
    rows, most = len(sources), max(map(len, targets))
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    first = _decoder_step(student, sources, opening, read, cache)
    # A source with fewer targets than another has its last one scored again, and that is dropped.
    full = [[*row, *[row[-1]] * (most - len(row))] for row in targets]
    mask, step = _mask(student, sources), 1
    if rows * most <= _AT_ONCE:
        step = most
        cache.batch_repeat_interleave(most)
        mask = mask.repeat_interleave(most, 0)
        read = BaseModelOutput(last_hidden_state=read.last_hidden_state.repeat_interleave(most, 0))
    found: list[list[list[float]]] = [[] for _ in sources]
    for begin in range(0, most, step):
        chosen = [target for row in full for target in row[begin : begin + step]]
        places = [place for place in range(rows) for _ in range(step)]
        starts = first[places, [target[0] for target in chosen]].tolist()
        rests = _rests(student, chosen, mask, read, cache)
        for place, start, rest in zip(places, starts, rests, strict=True):
            found[place].append([start, *rest])
    return [spelled[: len(row)] for spelled, row in zip(found, targets, strict=True)]


def _rests(
    student: Student, targets: Sequence[Ids], mask: Tensor, read: Any, cache: Any
) -> Iterator[list[float]]:
    """log p of the tokens of each target from the second on; the cache is left as it was."""
    model, width = student.model, max(map(len, targets)) - 1
    if not width:
        return iter([[] for _ in targets])
    # Padding stands behind a target, where the decoder does not look.
    fed = pad_right([target[:-1] for target in targets], int(student.tokenizer.pad_token_id))
    logits = model(
        encoder_outputs=read,
        attention_mask=mask,
        decoder_input_ids=fed.to(model.device),
        cache=cache,
        use_cache=True,
    ).logits
    cache.self_attention_cache.crop(-width)
    following = pad_right([target[1:] for target in targets], 0).to(model.device)
    tokens = _log_probabilities(logits).gather(2, following[:, :, None])[:, :, 0].tolist()
    return (row[: len(target) - 1] for row, target in zip(tokens, targets, strict=True))


def _causal(
    student: Student, sources: Sequence[Ids], opening: Ids, targets: Sequence[Sequence[Ids]]
) -> list[list[list[float]]]:
    """Each input once, its targets behind it, none of which sees another; or once for each target.

    The form of training: `branches.can_branch` says which models can.
    """
    model, pad, rows = student.model, int(student.tokenizer.pad_token_id), []
    shared = can_branch(model)
    for source, group in zip(sources, targets, strict=True):
        branches = tuple(Branch(_TASK, list(opening), list(target)) for target in group)
        rows += [Row(list(source), part) for part in ([branches] if shared else [(b,) for b in branches])]
    lines = [lay_out(row) for row in rows]
    labels = pad_right([line.labels for line in lines], IGNORED).to(model.device)
    segments = pad_right([line.segments for line in lines], -1).to(model.device)
    chosen = labels.ne(IGNORED)
    with logits_at(model, chosen):
        logits = model(
            input_ids=pad_right([line.ids for line in lines], pad).to(model.device),
            attention_mask=branch_mask(segments, model),
            position_ids=pad_right([line.places for line in lines], 0).to(model.device),
            use_cache=False,
        ).logits
    # The chosen positions come in the order of sources, targets and tokens.
    tokens = iter(_log_probabilities(logits).gather(1, labels[chosen][:, None])[:, 0].tolist())
    return [[[next(tokens) for _ in target] for target in group] for group in targets]


def _log_probabilities(logits: Tensor) -> Tensor:
    # Half precision is too coarse for a softmax over a vocabulary.
    return log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
