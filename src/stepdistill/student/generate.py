"""Greedy generation, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepdistill.records import Watcher, unwatched
from stepdistill.student.encode import Encoder, pad_left, pad_right
from stepdistill.student.model import Student


@torch.inference_mode()
def generate(
    student: Student,
    texts: Sequence[str],
    new_tokens: int,
    batch_size: int = 32,
    watch: Watcher = unwatched,
) -> list[str]:
    """The student's answers to input texts (prefix included), in their order.

    The same texts always come in the same batches, so repeated runs agree to the last bit.

    Args:
        student: put into evaluation mode while this runs.
        texts: inputs as in training.
        new_tokens: at most so many tokens are written.
        batch_size: rows in one call.
        watch: told of rows done, as "predict".
    """
    encoder = Encoder(student.tokenizer, student.family, 0, 0)
    sources = [encoder.source(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (len(sources[i]), i))
    answers = [""] * len(texts)
    was_training = student.model.training
    student.model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for i, words in zip(
                chosen, _batch(student, [sources[i] for i in chosen], new_tokens), strict=True
            ):
                answers[i] = words
            watch("predict", start + len(chosen), len(order))
    finally:
        student.model.train(was_training)
    return answers


def _batch(student: Student, sources: list[list[int]], new_tokens: int) -> list[str]:
    tokenizer = student.tokenizer
    pad = pad_left if student.family == "causal" else pad_right
    ids, mask = pad(sources, int(tokenizer.pad_token_id))
    device = student.model.device
    written = student.model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=new_tokens
    )
    if student.family == "causal":
        written = written[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
