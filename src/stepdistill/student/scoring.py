"""How likely a student finds each label of a closed set: teacher-forced, an input read once for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from stepdistill.records import TaskName, Watcher, unwatched
from stepdistill.student.batch import Collator
from stepdistill.student.encode import Branch, Row
from stepdistill.student.forward import branch_mask, can_branch, logits_at
from stepdistill.student.generate import check_positions, in_batches, write
from stepdistill.student.loss import IGNORED
from stepdistill.student.model import Student
from stepdistill.student.padding import pad_right
from stepdistill.weights import decoder_start

_TASK: TaskName = "label"
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

    These are the softmax over the labels of `label_log_likelihoods`. An encoder reads each input once for
    both, so that they cost little beside the answer.

    Raises:
        StudentError: as `generate`.
    """
    encoder, opening = student.encoder, student.encoder.opening(_TASK)
    sources = [encoder.source(text, _TASK) for text in texts]
    targets = [encoder.target(label) for label in labels]
    most = max([new_tokens, *map(len, targets)])
    check_positions(student, max(map(len, sources), default=0), len(opening), most)

    def work(chosen: list[list[int]]) -> list[tuple[str, tuple[float, ...]]]:
        read = _read(student, chosen) if student.family == "encoder-decoder" else None
        answers = write(student, chosen, opening, new_tokens, read=read)
        scores = _scores(student, chosen, targets, read).tolist()
        return list(zip(answers, map(_softmax, scores), strict=True))

    with torch.inference_mode():
        return in_batches(student, sources, work, _REFUSAL, batch_size, watch)


def label_log_likelihoods(
    student: Student, texts: Sequence[str], labels: Sequence[str], batch_size: int = 32
) -> list[list[float]]:
    """log p(label, end | `[label]` text) in nats: (texts, labels), in their orders.

    Args:
        student: put into evaluation mode while this runs.
        texts: inputs as in training, without the task's marker.
        labels: the closed set, as students are trained to write it.
        batch_size: inputs in one call, as long as memory lasts.

    Raises:
        StudentError: one input at a time needs more memory than there is.
    """
    encoder = student.encoder
    sources = [encoder.source(text, _TASK) for text in texts]
    targets = [encoder.target(label) for label in labels]

    def work(chosen: list[list[int]]) -> list[list[float]]:
        found: list[list[float]] = _scores(student, chosen, targets).tolist()
        return found

    with torch.inference_mode():
        return in_batches(student, sources, work, _REFUSAL, batch_size)


def _softmax(scores: Sequence[float]) -> tuple[float, ...]:
    shares = [math.exp(score - max(scores)) for score in scores]
    return tuple(share / sum(shares) for share in shares)


def _scores(student: Student, sources: list[list[int]], targets: list[list[int]], read: Any = None) -> Tensor:
    """(sources, targets)."""
    if student.family == "causal":
        return _causal(student, sources, targets)
    return _pair(student, sources, targets, _read(student, sources) if read is None else read)


def _read(student: Student, sources: list[list[int]]) -> BaseModelOutput:
    """What an encoder makes of a batch."""
    ids = pad_right(sources, int(student.tokenizer.pad_token_id)).to(student.model.device)
    found = student.model.get_encoder()(input_ids=ids, attention_mask=_mask(student, sources))
    return BaseModelOutput(last_hidden_state=found.last_hidden_state)


def _mask(student: Student, sources: list[list[int]]) -> Tensor:
    return pad_right([[1] * len(source) for source in sources], 0).to(student.model.device)


def _pair(student: Student, sources: list[list[int]], targets: list[list[int]], read: Any) -> Tensor:
    """What the decoder needs of the encoder is made once; then a short step of the decoder for each label."""
    model, rows, mask = student.model, len(sources), _mask(student, sources)
    opening = [decoder_start(model), *student.encoder.opening(_TASK)]
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def spell(tokens: Sequence[int | None]) -> Tensor:
        fed = torch.tensor([list(tokens)] * rows, device=model.device)
        logits = model(
            encoder_outputs=read,
            attention_mask=mask,
            decoder_input_ids=fed,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return _log_probabilities(logits)

    first, columns = spell(opening)[:, -1], []
    for target in targets:
        score = first[:, target[0]]
        if len(target) > 1:
            following = torch.tensor(target[1:], device=model.device).expand(rows, -1)
            score = score + spell(target[:-1]).gather(2, following[:, :, None]).sum(dim=(1, 2))
            # The next label begins behind the opening again.
            cache.self_attention_cache.crop(1 - len(target))
        columns.append(score)
    return torch.stack(columns, dim=1)


def _causal(student: Student, sources: list[list[int]], targets: list[list[int]]) -> Tensor:
    """Each input once, its labels behind it, none of which sees another; or once for each label.

    The form of training: `forward.can_branch` says which models can.
    """
    model, opening = student.model, student.encoder.opening(_TASK)
    branches = [Branch(_TASK, opening, target) for target in targets]
    shared = can_branch(model)
    groups = [tuple(branches)] if shared else [(branch,) for branch in branches]
    items = [(Row(source, group),) for source in sources for group in groups]
    collate = Collator(int(student.tokenizer.pad_token_id), student.family)
    batch = collate(list(enumerate(items)))
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    chosen = batch["labels"].ne(IGNORED)
    with logits_at(model, chosen):
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=branch_mask(batch["segments"], model),
            position_ids=batch["position_ids"],
            use_cache=False,
        ).logits
    tokens = _log_probabilities(logits).gather(1, batch["labels"][chosen][:, None])[:, 0]
    row = torch.arange(len(items), device=model.device)[:, None].expand_as(chosen)[chosen]
    place = row * len(groups[0]) + batch["segments"][chosen] - 1
    total = torch.zeros(len(sources) * len(targets), dtype=tokens.dtype, device=model.device)
    return total.index_add(0, place, tokens).reshape(len(sources), len(targets))


def _log_probabilities(logits: Tensor) -> Tensor:
    # Half precision is too coarse for a softmax over a vocabulary.
    return log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
