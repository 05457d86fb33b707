"""Greedy generation, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from stepdistill.errors import StudentError
from stepdistill.records import TaskName, Watcher, unwatched
from stepdistill.student.guards import is_out_of_memory
from stepdistill.student.limits import placed_tokens
from stepdistill.student.model import Student
from stepdistill.student.padding import pad_left, pad_right
from stepdistill.weights import decoder_start

_TAIL = 12
"""Tokens at the end of an answer in which a stop string is looked for."""


@torch.inference_mode()
def generate(
    student: Student,
    texts: Sequence[str],
    new_tokens: int,
    batch_size: int = 32,
    watch: Watcher = unwatched,
    task: TaskName = "label",
    stop: str | None = None,
) -> list[str]:
    """The student's answers to input texts, in their order.

    The same texts always come in the same batches, so repeated runs agree to the last bit, unless memory
    runs out: then the batches are halved from there on.

    Args:
        student: put into evaluation mode while this runs.
        texts: inputs as in training, without a task's marker.
        new_tokens: at most so many tokens are written.
        batch_size: rows in one call, as long as memory lasts.
        watch: told of rows done, as "predict".
        task: what is asked for.
        stop: an answer may end once it has written this, a string of a few tokens (12 at most).

    Raises:
        StudentError: an input and its answer need more positions than the model has, or more memory than
            there is.
    """
    encoder = student.encoder
    sources = [encoder.source(text, task) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (len(sources[i]), i))
    opening, start, longest = encoder.opening(task), 0, max(map(len, sources), default=0)
    _check_positions(student, longest, len(opening), new_tokens)
    answers = [""] * len(texts)
    was_training = student.model.training
    student.model.eval()
    try:
        while start < len(order):
            chosen = order[start : start + batch_size]
            written = _tried(student, [sources[i] for i in chosen], opening, new_tokens, stop)
            if written is None:
                batch_size = _halved(len(chosen), longest, new_tokens)
                continue
            for i, words in zip(chosen, written, strict=True):
                answers[i] = words
            start += len(chosen)
            watch("predict", start, len(order))
    finally:
        student.model.train(was_training)
    return answers


def _check_positions(student: Student, source: int, opening: int, new_tokens: int) -> None:
    # Learned positions end in an IndexError somewhere inside the model.
    positions = getattr(student.model.config, "max_position_embeddings", None)
    needed = placed_tokens(student.family, source, opening, new_tokens) if source else 0
    if positions and needed > positions:
        raise StudentError(
            f"the model has {positions} positions, and the longest input ({source} tokens) needs {needed} "
            f"with {new_tokens} for what is written; shorten the text, or take another student"
        )


def _tried(
    student: Student, sources: list[list[int]], opening: list[int], new_tokens: int, stop: str | None
) -> list[str] | None:
    """As `_batch`; None where memory ran out."""
    try:
        return _batch(student, sources, opening, new_tokens, stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _halved(rows: int, longest: int, new_tokens: int) -> int:
    """How many rows to try after so many did not fit into memory."""
    if rows > 1:
        return rows // 2
    raise StudentError(
        f"not enough memory to answer one input at a time (the longest has {longest} tokens, and up to "
        f"{new_tokens} are written); free memory, shorten the texts, or take a smaller student"
    )


def _batch(
    student: Student, sources: list[list[int]], opening: list[int], new_tokens: int, stop: str | None
) -> list[str]:
    tokenizer, model = student.tokenizer, student.model
    pad = int(tokenizer.pad_token_id)
    if student.family == "causal":
        prompts = [[*source, *opening] for source in sources]
        given = {"input_ids": pad_left(prompts, pad)}
        given["attention_mask"] = pad_left([[1] * len(prompt) for prompt in prompts], 0)
        read = given["input_ids"].shape[1]
    else:
        given = {"input_ids": pad_right(sources, pad)}
        given["attention_mask"] = pad_right([[1] * len(source) for source in sources], 0)
        read = len(opening) + 1
        if opening:
            given["decoder_input_ids"] = torch.tensor([[decoder_start(model), *opening]] * len(sources))
    given = {name: tensor.to(model.device) for name, tensor in given.items()}
    stops = [Stop(tokenizer, stop, read)] if stop else None
    written = model.generate(**given, max_new_tokens=new_tokens, stopping_criteria=stops)
    texts = tokenizer.batch_decode(written[:, read:], skip_special_tokens=True)
    return [text.strip() for text in texts]


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer that has written a string, whatever tokens it is made of."""

    def __init__(self, tokenizer: Any, text: str, read: int) -> None:
        """Look for `text` behind the first `read` positions."""
        self.tokenizer, self.text, self.read = tokenizer, text, read

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows are done, (rows,)."""
        tails = self.tokenizer.batch_decode(input_ids[:, self.read :][:, -_TAIL:])
        return torch.tensor([self.text in tail for tail in tails], device=input_ids.device)
